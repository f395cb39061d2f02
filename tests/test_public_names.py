"""The public names and signatures: what an experiment file of today may rely on tomorrow.

After a change on purpose: `python tests/test_public_names.py` writes the list again; say in CHANGELOG.md what changed.
"""

import importlib
import inspect
from pathlib import Path

PUBLIC = Path(__file__).parent / "data" / "public_names.txt"
MODULES = (
    "cong.methods", "cong.decoding", "cong.experiment", "cong.generation", "cong.scoring", "cong.search",
    "cong.training", "cong.probing", "cong.evaluation", "cong.data", "cong.models", "cong.scales", "cong.report",
)  # fmt: skip


def lines() -> list[str]:
    return [line for name in MODULES for line in _names(name)]


def _names(name: str) -> list[str]:
    module = importlib.import_module(name)
    return [f"{name}.{public}{_signature(getattr(module, public))}" for public in sorted(module.__all__)]


def _signature(value: object) -> str:
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return ""
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:
        return ""
    return f"({', '.join(_parameter(parameter) for parameter in parameters)})"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    optional = "" if parameter.default is parameter.empty else "="
    return f"{stars}{parameter.name}{optional}"


def test_public_names_and_signatures_are_those_that_were_promised():
    assert lines() == PUBLIC.read_text().splitlines()


def test_every_public_module_says_what_is_public():
    assert all(importlib.import_module(name).__all__ for name in MODULES)


if __name__ == "__main__":
    PUBLIC.write_text("\n".join(lines()) + "\n")
