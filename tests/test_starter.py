"""A first directory, what is installed with the package, and what is missing without an extra."""

import ast
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cong.cli.init import FILES, write_starter
from cong.errors import UserError, require
from cong.experiment import load
from cong.experiment.axes import Search, parse_axis
from cong.graph.resources import load_profile
from cong.scales import scale

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_a_starter_is_an_experiment_and_a_profile(tmp_path):
    written = write_starter(tmp_path / "demo")
    assert {path.name for path in written} == {*FILES, ".gitignore"}
    cells = load(tmp_path / "demo" / "quickstart.py").cells(scale("tiny"), {})
    methods = [cell.axes["method"] for cell in cells]
    assert methods == [
        "Base",
        "Weak SFT (post)",
        "ConG-S, alpha 0.4",
        "ConG, alpha 0.4",
    ]
    assert load_profile(str(tmp_path / "demo" / "my_machine.toml")).device == "cpu"


@pytest.mark.parametrize("there", ["quickstart.py", ".gitignore"])
def test_a_starter_overwrites_nothing(tmp_path, there):
    (tmp_path / there).write_text("mine")
    with pytest.raises(UserError, match=rf"{re.escape(there)} is there already"):
        write_starter(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_a_starter_in_the_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "demo").write_text("a file")
    with pytest.raises(UserError, match="there is a file of that name"):
        write_starter(tmp_path / "demo")


def test_a_missing_extra_is_one_line_that_names_it(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name))
    (tmp_path / "numbers.py").write_text((ROOT / "tests" / "numbers_experiment.py").read_text())
    axis = parse_axis(load(ROOT / "experiments" / "alpha_sweep.py"), "alpha=0:1")
    with pytest.raises(UserError, match=r"optuna is not installed: pip install 'cong\[search\]'"):
        Search(axes=(axis,), measure="reward", lowest=False, trials=2, searcher="optuna", seed=0)
    require("ray", extra="none")


def test_every_package_that_is_imported_is_declared():
    declared = {Requirement(text).name for text in PROJECT["dependencies"]}
    extras = PROJECT["optional-dependencies"]
    optional = {Requirement(text).name for name in ("judges", "downstream", "search", "vllm") for text in extras[name]}
    owners = {**importlib.metadata.packages_distributions(), "vllm": ["vllm"]}
    normal = {_normal(name) for name in declared | optional}
    missing = {name for name in imported() if not {_normal(owner) for owner in owners[name]} & normal}
    assert missing == set()


def imported() -> set[str]:
    names = set()
    for path in (ROOT / "cong").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(str(node.module).split(".")[0])
    # Scripts of the sandbox import their neighbours by name.
    own = {path.stem for path in (ROOT / "cong" / "sandbox" / "inside").glob("*.py")}
    return names - set(sys.stdlib_module_names) - own - {"cong"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_make_says_in_one_line_what_is_missing(tmp_path):
    done = subprocess.run(["make", "-s", "tools", "PYTHON="], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith("error: no python3.11, 3.12 or 3.13: install one")
