"""PGR and Recovery beside the methods of the tables and sweeps: their columns, rows and cells."""

from pathlib import Path
from typing import Any

import pytest
from handmade import publish

from cong import methods
from cong.experiment import load
from cong.graph.store import Store
from cong.paper import tables
from cong.report import Table
from cong.scales import scale

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
REWARDS = {"Weak": 0.0, "Weak (aligned)": 1.0, "Base": 0.5, "Ceiling": 3.0, "DPO": 1.5}
"""Of the ends; whatever else is halfway from the aligned weak model to the ceiling."""
HALF = 2.0


def reported(name: str, store: Store, settings: dict[str, Any], *, ends: dict[str, float] = REWARDS) -> list:
    experiment = load(EXPERIMENTS / f"{name}.py")
    cells = experiment.cells(scale("tiny"), settings)
    results = publish(cells, store, reward=lambda axes: ends.get(str(axes.get("method", "")), HALF))
    return list(experiment.report(results))


def rows(blocks: list, title: str) -> dict[str, dict[str, str]]:
    """Return a table as its rows, each by column."""
    found = next(block for block in blocks if isinstance(block, Table) and block.title == title)
    return {row[0]: dict(zip(found.columns[1:], row[1:], strict=True)) for row in found.rows}


def share(text: str) -> float:
    """Return the share that is printed, which lies in its interval."""
    mean, _, interval = text.partition(" [")
    low, high = (float(bound) for bound in interval.rstrip("]").split(", "))
    assert low <= float(mean) <= high
    return float(mean)


def test_the_table_of_methods_has_shares_beside_every_method_and_the_ends_below(store):
    found = rows(reported("methods", store, {"families": ("qwen",), "seeds": (0, 1)}), "qwen, weak to strong")
    assert list(found) == [*tables.WEAK_TO_STRONG, "Weak", "Weak (aligned)", "Ceiling"]
    assert share(found["ConG"]["PGR"]) == pytest.approx(0.5, abs=0.005)
    assert share(found["ConG"]["Recovery"]) == pytest.approx(1.5 / 2.5, abs=0.005)
    # Their teacher is the unaligned weak model.
    for name in ("Weak SFT (pre)", "AuxConf"):
        assert share(found[name]["PGR"]) == pytest.approx(2 / 3, abs=0.005)
    assert found["Ceiling"]["PGR"] == found["Ceiling"]["Recovery"] == "1.00 [1.00, 1.00]"
    assert found["Weak (aligned)"]["PGR"] == found["Base"]["Recovery"] == "0.00 [0.00, 0.00]"


def test_of_one_model_its_own_alignment_is_the_ceiling(store):
    blocks = reported("methods", store, {"families": ("qwen",)})
    found = rows(blocks, "qwen, one model")
    assert list(found) == ["Base", "DPO", "ORPO", "SimPO", "ConG-S (self)", "ConG (self)"]
    assert found["DPO"]["Recovery"] == "1.00 [1.00, 1.00]"
    assert share(found["ConG (self)"]["Recovery"]) == pytest.approx(1.5)
    assert {row["PGR"] for row in found.values()} == {"undefined"}


@pytest.mark.parametrize(
    ("experiment", "settings", "title", "row", "column"),
    [
        ("domains", {"domains": ("chat", "math")}, "qwen: share of the gap that is recovered", "ConG", "math, PGR"),
        ("model_gap", {"path": (), "sizes": False}, "Weak size varies: share of the gap that is recovered",
         "1.5B to 7B", "ConG, PGR"),
        ("alpha_sweep", {"methods": ("Base", "ConG-S", "ConG")}, "Share of the gap that is recovered", "0.4",
         "ConG, beta 0.5: PGR"),
    ],
)  # fmt: skip
def test_every_sweep_has_shares_and_says_undefined_without_a_gap(experiment, settings, title, row, column, tmp_path):
    found = rows(reported(experiment, Store(tmp_path / "a"), settings), title)
    assert share(found[row][column]) == pytest.approx(0.5, abs=0.005)
    assert share(found[row][column.replace("PGR", "Recovery")]) == pytest.approx(0.6, abs=0.005)
    none = rows(reported(experiment, Store(tmp_path / "b"), settings, ends=REWARDS | {"Ceiling": 1.0}), title)
    assert none[row][column] == "undefined"


def test_the_ends_are_measured_once_and_only_where_they_are_no_rows():
    t = methods.transition("qwen", weak="3B", strong="7B", scale=scale("tiny"))
    cells = tables.gap_cells(t, axes={"seed": 0}, known=("Base",))
    assert [cell.axes["method"] for cell in cells] == ["Weak", "Weak (aligned)", "Ceiling"]
    assert [cell.stage.evaluated_model for cell in cells] == [t.weak, t.weak_aligned, methods.ceiling(t)]  # pyright: ignore[reportAttributeAccessIssue]
    base, *_ = tables.gap_cells(t, axes={}, known=("Weak", "Weak (aligned)", "Ceiling"))
    assert base.stage == methods.evaluate(t, methods.base(t))
