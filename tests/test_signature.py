"""The axes of an experiment are the keyword arguments of `cells`, and the fields of the dataclasses among them."""

from dataclasses import dataclass

import pytest

from cong.errors import UserError
from cong.experiment import load
from cong.experiment.signature import arguments, axes_of
from cong.scales import scale


@dataclass(frozen=True, kw_only=True)
class Shared:
    seeds: tuple[int, ...] = (0,)
    alpha: float | None = None


GIVEN = Shared(seeds=(3,))


def cells(scale, *, shared: Shared = GIVEN, share: float = 0.1) -> tuple:
    return shared, share


def test_fields_of_a_dataclass_are_axes_with_the_defaults_of_the_experiment():
    axes = axes_of(cells)
    assert list(axes) == ["seeds", "alpha", "share"]
    assert (axes["seeds"].default, axes["alpha"].default) == ((3,), None)
    assert axes["seeds"].annotation == tuple[int, ...]


def test_what_is_set_reaches_the_dataclass_and_the_rest_keeps_its_default():
    assert cells(None, **arguments(cells, {"alpha": 0.5, "share": 0.2})) == (Shared(seeds=(3,), alpha=0.5), 0.2)
    assert cells(None, **arguments(cells, {})) == (GIVEN, 0.1)


def test_two_axes_of_one_name_are_one_line_that_names_the_file(tmp_path):
    path = tmp_path / "double.py"
    text = "def cells(scale, *, a: Setups = Setups(), beta: float = 1.0): ..."
    path.write_text(f"from cong.paper.setups import Setups\n{text}")
    with pytest.raises(UserError, match=r"double\.py: two axes are called 'beta'"):
        load(path)


def test_axes_of_a_shared_dataclass_are_set_from_the_command_line(tmp_path):
    path = tmp_path / "shared.py"
    path.write_text(
        "from cong import methods\nfrom cong.experiment import Cell\nfrom cong.paper.setups import Setups\n"
        "def cells(scale, *, setups: Setups = Setups(families=('qwen',))):\n"
        "    return [Cell(stage=setup.models['ConG'], axes=setup.axes) for setup in setups.of(scale)]\n"
    )
    experiment = load(path)
    chosen = experiment.settings(["families=llama,qwen-llama", "seeds=1", "beta=0.25"])
    axes = [cell.axes for cell in experiment.cells(scale("tiny"), chosen)]
    assert [(at["family"], at["seed"], at["beta"]) for at in axes] == [("llama", 1, 0.25), ("qwen-llama", 1, 0.25)]
    with pytest.raises(UserError, match=r"unknown axis 'setups'; the axes of shared\.py are families"):
        experiment.settings(["setups=1"])
