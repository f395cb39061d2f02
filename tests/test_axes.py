"""Every axis of every experiment: what a value gives does not depend on the values that were built before it."""

import dataclasses
import inspect
from pathlib import Path

import pytest

from cong import methods
from cong.experiment import Cell, Experiment, load
from cong.experiment.grid import grid_cells, merge
from cong.scales import scale

EXPERIMENTS = Path(__file__).parents[1] / "experiments"

OTHER = {
    "alpha": 0.7,
    "alphas": (0.3, 0.35),
    "alignment_learning_rate": (5e-5, 7e-5),
    "best_of": (3,),
    "beta": 0.25,
    "domains": ("math",),
    "easy": 0.25,
    "epochs": (1, 4),
    "families": ("llama",),
    "family": "llama",
    "from_weak": "3B",
    "judges": ("student",),
    "labels": 50,
    "margins": (1.5, 2.5),
    "methods": ("ConG-S",),
    "noise": 0.4,
    "only": ("methods",),
    "onward_alpha": 0.8,
    "orpo_weight": (0.1, 2.0),
    "path": ("1.5B", "7B"),
    "prompts": 128,
    "raters": 2,
    "rate": 0.3,
    "ratings": ("ann.csv",),
    "rounds": 3,
    "seeds": (1, 2),
    "sft_epochs": 1,
    "sft_learning_rate": 1e-4,
    "share": 0.2,
    "shift": "code",
    "simpo_beta": (4.0, 6.0),
    "simpo_gamma": (0.7, 1.4),
    "smoothing": 0.25,
    "stage_one": ("3e-4x1", "2e-4x3"),
    "step": 0.3,
    "strong": "3B",
    "strongs": ("14B",),
    "students": ("ConG-S",),
    "swap_margins": (0.5, 0.75),
    "to_strong": "14B",
    "trained": 64,
    "weak": "7B",
    "weaks": ("1.5B",),
    "weight": 1.5,
}
"""A value of each axis that is nobody's default."""


def other_value(parameter: inspect.Parameter):
    if parameter.name == "sizes":
        return False if parameter.annotation is bool else ("1.5B",)
    if parameter.default == OTHER[parameter.name]:
        return "7B"
    return OTHER[parameter.name]


def axes():
    for path in sorted(EXPERIMENTS.glob("*.py")):
        if "def cells(" in path.read_text():
            for name in load(path).axes:
                yield pytest.param(path, name, id=f"{path.stem}-{name}")


def identities(cells: list[Cell]) -> list[tuple[str, str]]:
    return [(cell.name, cell.stage.fingerprint) for cell in cells]


@pytest.mark.parametrize(("path", "axis"), axes())
def test_a_value_gives_the_same_cells_after_another_value_as_alone(path, axis, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ann.csv").write_text("item,rating\n")
    experiment = load(path)
    value = other_value(experiment.axes[axis])
    alone = identities(experiment.cells(scale("tiny"), {axis: value}))
    shared = scale("tiny")
    default = identities(experiment.cells(shared, {}))
    assert identities(experiment.cells(shared, {axis: value})) == alone
    assert identities(experiment.cells(shared, {})) == default
    # An axis that changes nothing would be a name for what another value gives.
    assert set(alone) != set(default)


@pytest.mark.parametrize(
    ("field", "change"),
    [("sft", {"learning_rate": 1e-4}), ("alignment", {"epochs": 3}), ("dpo", {"learning_rate": 1e-6})],
)
def test_a_replaced_setting_of_a_scale_reaches_the_stages_that_use_it(field, change):
    first = scale("tiny")
    methods.cong(methods.transition("qwen", weak="3B", strong="7B", scale=first), alpha=0.4, beta=0.5)
    second = dataclasses.replace(first, **{field: dataclasses.replace(getattr(first, field), **change)})
    stages = [
        methods.cong(methods.transition("qwen", weak="3B", strong="7B", scale=one), alpha=0.4, beta=0.5)
        for one in (first, second)
    ]
    assert stages[0].fingerprint != stages[1].fingerprint


def test_a_scale_holds_nothing_that_can_change():
    made = scale("tiny")
    before = repr(made)
    methods.transition("qwen", weak="3B", strong="7B", scale=made)
    assert repr(made) == before


def numbers(*, label: float) -> list[Cell]:
    t = methods.transition("qwen", weak="3B", strong="7B", scale=scale("tiny"))
    return [Cell(stage=methods.cong_s(t, alpha=label), axes={"alpha": label})]


def test_values_that_differ_in_a_late_digit_keep_names_and_stages_of_their_own():
    merged = merge([({"alpha": value}, numbers(label=value)) for value in (0.1234567, 0.1234568, 0.5)])
    assert len({cell.name for cell in merged}) == len({cell.stage.fingerprint for cell in merged}) == 3
    assert [cell.name for cell in merged][-1] == "alpha=0.5"


def test_a_grid_keeps_every_point_of_an_axis(tmp_path):
    path = tmp_path / "rates.py"
    path.write_text(
        '"""Learning rates."""\nimport dataclasses\nfrom cong import methods\nfrom cong.experiment import Cell\n\n'
        "def cells(scale, *, rate: float = 1e-4):\n"
        "    chosen = dataclasses.replace(scale, sft=dataclasses.replace(scale.sft, learning_rate=rate))\n"
        "    t = methods.transition('qwen', weak='3B', strong='7B', scale=chosen)\n"
        "    return [Cell(stage=methods.cong_s(t, alpha=0.4), axes={'method': 'ConG-S'})]\n"
    )
    experiment: Experiment = load(path)
    cells = grid_cells(experiment, scale("tiny"), {}, {"rate": (1e-4, 2e-4, 3e-4)})
    assert len({cell.stage.fingerprint for cell in cells}) == 3
