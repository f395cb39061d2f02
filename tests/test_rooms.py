"""How the house is built: packages import downward, nothing lies loose, functions and files stay short."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cong"
LEVELS = (
    "errors", "graph", "models", "data", "decoding", "generation", "sandbox", "synthetic", "scoring", "search",
    "evaluation", "training", "probing", "scales", "methods", "experiment", "report", "paper", "tracking", "run",
    "publish", "align", "submit", "cli",
)  # fmt: skip
"""From the lowest to the highest: a package imports only what stands before it."""


def modules() -> dict[str, Path]:
    return {_name(path): path for path in PACKAGE.rglob("*.py")}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Every module of `cong` that a file imports, at its head or within a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("cong."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cong":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else str(node.module)


def arrows() -> set[tuple[str, str]]:
    """Pairs of packages of which one imports the other."""
    known = modules()
    pairs = {
        (module.split(".")[1], target.split(".")[1])
        for module, path in known.items()
        for target in imports(path, known)
        if module.count(".") and target.count(".")
    }
    return {(one, other) for one, other in pairs if one != other and one != "__main__"}


def functions() -> Iterator[tuple[str, int]]:
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "experiments").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{path.relative_to(ROOT)}:{node.name}", node.end_lineno - node.lineno + 1


def test_every_package_has_a_level_and_imports_only_lower_ones():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == set(LEVELS) - {"errors"}
    upward = {(one, other) for one, other in arrows() if LEVELS.index(other) >= LEVELS.index(one)}
    assert not upward


def test_an_import_upward_would_be_seen():
    assert ("cli", "run") in arrows()
    assert ("decoding", "models") in arrows()
    assert not any(one == "graph" for one, other in arrows() if other != "errors")


def test_nothing_lies_loose():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.parametrize("folder", ["cong", "experiments", "cluster"])
def test_files_have_at_most_300_lines(folder):
    lengths = {str(path): len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_functions_are_short():
    lengths = dict(functions())
    assert {name: length for name, length in lengths.items() if length > 60} == {}
    assert statistics.median(lengths.values()) <= 8
