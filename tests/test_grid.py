"""Grids over axes: what their texts mean, which cells come of them, and what is refused."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cong.errors import UserError
from cong.experiment.grid import expand
from cong.graph.resources import Resources
from cong.graph.store import Store
from cong.run.job import prepare

EXPERIMENT = '''
"""A toy"""
from dataclasses import dataclass
from cong.experiment import Cell
from cong.graph.stage import Stage

{grid}

@dataclass(frozen=True, kw_only=True)
class Point(Stage):
    alpha: float = 0.0
    beta: float = 0.0
    seed: int = 0

def cells(scale, *, alpha: float = 0.4, beta: float = 0.5, seeds: tuple[int, ...] = (0,), hidden: int = 0):
    found = [Cell(stage=Point(), axes={{"method": "base"}})]
    for seed in seeds:
        axes = {{"method": "swept", "alpha": alpha, "seed": seed}}
        found.append(Cell(stage=Point(alpha=alpha, beta=beta + hidden, seed=seed), axes=axes))
    return found
'''


def names(tmp_path: Path, *grid: str, own: str = "", settings: tuple[str, ...] = ()) -> list[str]:
    path = tmp_path / "toy_grid.py"
    path.write_text(EXPERIMENT.format(grid=own))
    job = prepare(
        path,
        scale="tiny",
        assignments=list(settings),
        grid=grid,
        resources=Resources(name="t").changed(ray=False, actors=0),
        store=Store(tmp_path / "store"),
    )
    return [cell.name for cell in job.cells]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1,0.5", [0.1, 0.5]),
        ("0:1:0.25", [0, 0.25, 0.5, 0.75, 1]),
        ("1:0:-0.5", [1, 0.5, 0]),
        ("0,0.1,...,0.3", [0, 0.1, 0.2, 0.3]),
        ("5,0:2:1", [5, 0, 1, 2]),
        ("3:3:1", [3]),
    ],
)
def test_a_text_means_these_values(text, values):
    assert [float(value) for value in expand(text)] == values


@given(first=st.integers(-50, 50), step=st.integers(1, 40), count=st.integers(0, 60))
def test_a_range_holds_both_ends_and_equal_decimal_steps(first, step, count):
    last = first + step * count
    values = [round(float(value) * 100) for value in expand(f"{first / 100}:{last / 100}:{step / 100}")]
    assert values == list(range(first, last + 1, step))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0:1", "not a range FIRST:LAST:STEP"),
        ("0:1:0", "never reaches 1 from 0"),
        ("1:0:0.1", "never reaches 0 from 1"),
        ("0:1:0.3", r"misses 1: the steps of 0\.3"),
        ("0:1:1e-9", "more than 10000"),
        ("a:1:1", "'a' is not a number"),
        ("0.1,,0.2", "missing between commas"),
        ("0,...,1", "between two first values"),
    ],
)
def test_a_text_that_means_nothing_is_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=reason):
        expand(text)


def test_every_combination_is_a_cell_and_what_no_axis_changes_is_there_once(tmp_path):
    found = names(tmp_path, "alpha=0,1", "seeds=0,1")
    assert found == [
        "method=base",
        "method=swept,alpha=0,seed=0",
        "method=swept,alpha=0,seed=1",
        "method=swept,alpha=1,seed=0",
        "method=swept,alpha=1,seed=1",
    ]


def test_cells_of_one_name_are_told_apart_by_the_grid(tmp_path):
    assert names(tmp_path, "beta=0.1,0.5") == [
        "method=base",
        "beta=0.1,method=swept,alpha=0.4,seed=0",
        "beta=0.5,method=swept,alpha=0.4,seed=0",
    ]


def test_the_files_own_grid_is_run_unless_an_axis_is_given(tmp_path):
    own = 'GRID = ("alpha=0,1",)'
    assert len(names(tmp_path, own=own)) == 3
    assert names(tmp_path, "alpha=0.2,0.3,0.4", own=own)[1:] == [
        f"method=swept,alpha={alpha},seed=0" for alpha in (0.2, 0.3, 0.4)
    ]
    assert names(tmp_path, own=own, settings=("alpha=0.7",)) == ["method=base", "method=swept,alpha=0.7,seed=0"]


@pytest.mark.parametrize(
    ("grid", "settings", "message"),
    [
        (("gamma=1,2",), (), r"unknown axis 'gamma'; the axes of toy_grid\.py are alpha \(float\), beta"),
        (("alpha",), (), "write AXIS=VALUES"),
        (("alpha=a,b",), (), "'a' is not of type float"),
        (("alpha=0,0.0",), (), r"the value 0\.0 comes twice"),
        (("alpha=0,1", "alpha=2"), (), "given twice"),
        (("alpha=0,1",), ("alpha=0.3",), "with --set and with --grid"),
    ],
)
def test_a_grid_that_does_not_fit_the_axes_is_refused(tmp_path, grid, settings, message):
    with pytest.raises(UserError, match=message):
        names(tmp_path, *grid, settings=settings)


def test_the_command_line_takes_a_grid(tmp_path):
    command = [sys.executable, "-m", "cong.cli", "plan", "experiments/quickstart.py", "--store", str(tmp_path)]
    root = Path(__file__).parent.parent
    done = subprocess.run([*command, "--grid", "beta=0.1,0.5"], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    wrong = subprocess.run([*command, "--grid", "alpha=0.5,1.5"], capture_output=True, text=True, cwd=root)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "alpha = 1.5 is not in [0, 1]" in wrong.stderr


def test_the_points_of_a_grid_share_what_they_have_in_common():
    job = prepare(
        Path(__file__).parent.parent / "experiments" / "alpha_sweep.py",
        scale="tiny",
        assignments=[],
        grid=("alpha=0:1:0.1", "beta=0.1,0.5"),
        resources=Resources(name="t").changed(ray=False, actors=0),
        store=Store(Path("no-such-store")),
    )
    kinds = Counter(stage.name for stage in job.plan.stages)
    students = [stage for stage in job.plan.stages if stage.name == "DPO" and stage.beta == 0.1 and stage.seed == 0]  # pyright: ignore
    assert len(job.cells) == 22 + 3, "22 of ConG, and the ends of the gap"
    assert (kinds["ContrastiveGenerate"], kinds["SFT"]) == (11, 11)
    assert kinds["DPO"] == 22 + 2, "22 of Stage II, the weak alignment and the ceiling"
    assert len(students) == 11 + 2
    assert kinds["ReferenceLogprobs"] == 11 + 2
    sampled = [stage for stage in job.plan.stages if stage.name == "Generate" and stage.title == "Generate(T=0.8)"]
    assert len(sampled) == 11, "one set of rejected responses for both betas"
