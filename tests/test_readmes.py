"""The READMEs: short, and nothing in them names what is not there."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from cong.cli.app import app

ROOT = Path(__file__).parents[1]
READMES = sorted(path for path in ROOT.rglob("*.md") if not {".venv", ".venv-vllm", "runs"} & set(path.parts))
NOT_OURS = {"cong.svg", "cong.backend"}
"""Names with a dot that are no module: a key of Parquet metadata."""


def texts():
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in READMES]


def commands(text: str) -> list[list[str]]:
    """Every `cong ...` command of a text's code blocks, or in backticks with at least one option or file."""
    blocks = "\n".join(re.findall(r"```\n(.*?)```", text, re.DOTALL))
    inline = "\n".join(re.findall(r"`(cong [a-z]+ [^`]+)`", text))
    lines = re.findall(r"^(?:sbatch [^\n]*|)(cong [a-z][^#\n]*)", f"{blocks}\n{inline}", re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_the_readme_has_at_most_200_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("path", texts())
def test_links_and_paths_lead_somewhere(path):
    text = path.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
    named = re.findall(r"`((?:cong|experiments|cluster|tests)/[\w./-]+?)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", texts())
def test_dotted_names_are_modules_or_what_they_hold(path):
    names = set(re.findall(r"`(cong(?:\.\w+)+)", path.read_text())) - NOT_OURS
    assert [name for name in sorted(names) if not _exists(name)] == []


def _exists(name: str) -> bool:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        try:
            for attribute in parts[count:]:
                value = getattr(value, attribute)
        except AttributeError:
            return False
        return True
    return False


@pytest.mark.parametrize("path", texts())
def test_commands_have_the_options_that_there_are(path):
    import typer.main

    known = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    for words in commands(path.read_text()):
        command = known[words[1]]
        options = {option for parameter in command.params for option in parameter.opts}
        given = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
        assert given <= options, words


def test_commands_are_found_in_the_texts():
    found = [words[1] for path in READMES for words in commands(path.read_text())]
    assert {"run", "plan", "tune", "submit", "decode", "status"} <= set(found)
