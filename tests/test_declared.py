"""What `cong` imports is declared in pyproject.toml, and a missing extra is one line before anything is computed."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT

from cong import __version__
from cong.cli import app
from cong.errors import UserError, require
from cong.evaluation import AlpacaEval2, Compare, Downstream, Task
from cong.experiment.axes import Axis, Search
from cong.generation.backends import check_backend
from cong.graph.resources import Resources
from cong.graph.store import store_at
from cong.models import LocalModel
from cong.synthetic.stages import SyntheticPrompts
from cong.synthetic.world import World

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PROMPTS = SyntheticPrompts(world=World(), split="heldout", count=2, seed=0)
# vLLM is not installed where the tests are run, so nothing knows which distribution brings it.
DISTRIBUTIONS = {"vllm": ["vllm"], **packages_distributions()}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0]


def imported(directory: Path) -> set[str]:
    trees = (ast.parse(path.read_text()) for path in directory.rglob("*.py"))
    return {name for tree in trees for name in imports(tree)} - sys.stdlib_module_names - {"cong"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def distribution(requirement: str) -> str:
    return normal(re.split(r"[\[<>=~! ]", requirement)[0])


def declared(*extras: str) -> set[str]:
    listed = [*PROJECT["dependencies"], *(line for name in extras for line in PROJECT["optional-dependencies"][name])]
    return {distribution(line) for line in listed}


def undeclared(names: set[str], known: set[str]) -> list[str]:
    return sorted(name for name in names if not {normal(one) for one in DISTRIBUTIONS.get(name, [name])} & known)


def test_every_package_that_cong_imports_is_declared():
    assert undeclared(imported(ROOT / "cong"), declared("judges", "downstream", "search", "gguf", "vllm")) == []


def test_a_package_that_is_not_declared_would_be_seen():
    tree = ast.parse("import moto.server\ndef f():\n    from yaml import safe_load\n    from . import near\n")
    assert undeclared(set(imports(tree)), declared()) == ["moto", "yaml"]


def test_the_experiments_need_nothing_that_cong_does_not():
    own = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    assert (
        undeclared(
            imported(ROOT / "experiments") - own,
            declared("judges", "downstream", "search", "gguf", "vllm", "sentiment"),
        )
        == []
    )


def test_the_environment_of_the_tests_has_every_extra_but_vllm_and_what_only_a_browser_or_google_need():
    brought = re.search(r"cong\[([^]]*)]", " ".join(PROJECT["optional-dependencies"]["dev"]))
    assert brought is not None
    others = set(PROJECT["optional-dependencies"]) - {"dev", "browser", "gcs", "vllm"}
    assert set(brought[1].split(",")) == others


def test_what_make_installs_is_pinned():
    pins = {distribution(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"}
    assert declared("dev", "judges", "downstream", "search", "s3", "gguf") - {"cong"} <= pins


def test_the_version_stands_in_one_place():
    assert "version" not in PROJECT
    assert PROJECT["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def asked_judge(resources: Any) -> None:
    Compare(responses=PROMPTS, baseline=PROMPTS, judge=AlpacaEval2()).check()


def questioned(resources: Any) -> None:
    Downstream(model=LocalModel(path="no/model"), tasks=(Task(name="arc_easy"),)).check()


def searched(resources: Any) -> None:
    axes = (Axis(name="alpha", values=(0.0, 1.0), bounded=True),)
    Search(axes=axes, measure="reward", lowest=False, trials=2, searcher="optuna", seed=0)


def decoded(resources: Any) -> None:
    check_backend(resources)


def opened(resources: Any) -> None:
    store_at("s3://bucket/runs").check()


@pytest.mark.parametrize(
    ("package", "extra", "use"),
    [
        ("openai", "judges", asked_judge),
        ("lm_eval", "downstream", questioned),
        ("optuna", "search", searched),
        ("vllm", "vllm", decoded),
        ("s3fs", "s3", opened),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(package, extra, use, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    with pytest.raises(UserError) as raised:
        use(Resources(name="t").changed(ray=False, backend="vllm"))
    assert str(raised.value).endswith(f"pip install 'cong[{extra}]'")
    assert "\n" not in str(raised.value)


def test_a_search_that_proposes_at_random_needs_no_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    axes = (Axis(name="alpha", values=(0.0, 1.0), bounded=True),)
    assert Search(axes=axes, measure="reward", lowest=False, trials=2, searcher="random", seed=0).trials == 2


def test_the_command_line_ends_with_2_and_the_line(monkeypatch, capsys):
    def needs(**_: Any) -> None:
        require("no_such_package", extra="judges")

    monkeypatch.setattr(app, "app", needs)
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: this needs no_such_package: pip install 'cong[judges]'\n"


def test_what_is_there_is_not_imported_to_be_looked_for(monkeypatch):
    monkeypatch.delitem(sys.modules, "optuna", raising=False)
    require("optuna", extra="search")
    assert "optuna" not in sys.modules
