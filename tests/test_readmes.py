"""READMEs: what they name exists, and the commands that they show are commands.

Nothing is run: names are resolved, and command lines are parsed by the command line's own objects.
"""

import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cong.cli.app import app
from cong.graph.resources import load_profile

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("cong", "experiments", "cluster", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for place in PLACES for page in (ROOT / place).rglob("README.md"))])
LONGEST = 200

NOT_PARSED: dict[str, str] = {}
"""Commands in READMEs that need not be known, with the reason."""
NO_NAMES = {"cong.backend": "a key in the metadata of Parquet files"}
"""What looks like a name in the package, and is none."""

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(rf"(?<![\w./~:-])(?:{'|'.join(PLACES)})/[\w./*{{}}-]*[\w/*}}]")
_NAME = re.compile(r"(?<![\w./-])cong(?:\.[A-Za-z_]\w*)+")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    return _BLOCK.sub("", page.read_text())


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in _BLOCK.findall(page.read_text()) if language in languages]


def in_blocks(page: Path) -> Iterator[str]:
    """Every command line of `cong` in a page's code blocks, without comments and what is chained to it."""
    for block in blocks(page, "", "bash", "sh", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;|\|", line.removeprefix("$ ").split("  #")[0]):
                if part.strip().startswith("cong "):
                    yield part.strip()


def in_text(page: Path) -> Iterator[str]:
    """Every command of `cong` that a text or a table quotes, which may leave out what a command needs."""
    for quoted in _INLINE.findall(prose(page)):
        words = " ".join(quoted.split())
        if words.startswith("cong "):
            yield words


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        module = ".".join(parts[:cut])
        if _is_module(module):
            return cut == len(parts) or _has(importlib.import_module(module), parts[cut:])
    return False


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _has(value: Any, names: list[str]) -> bool:
    for name in names:
        if not hasattr(value, name):
            return False
        value = getattr(value, name)
    return True


def parsed(command: str) -> Any:
    """Return the context of a whole command line; raise for unknown commands and options, and for missing ones."""
    _, name, *words = shlex.split(command)
    return COMMANDS[name].make_context(name, words)


def options(command: str) -> list[str]:
    return [word.split("=")[0] for word in shlex.split(command) if word.startswith("--")]


def test_the_readme_is_short_enough_to_be_read():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= LONGEST
    assert [line for line in lines if len(line) > 120] == []


def test_every_room_that_the_readme_sends_people_to_has_a_page():
    assert {"README.md", "experiments/README.md", "cong/decoding/README.md", "cong/graph/README.md"} <= {
        str(page.relative_to(ROOT)) for page in PAGES
    }


@pages
def test_every_link_leads_to_a_file(page: Path):
    links = [link.split("#")[0] for link in _LINK.findall(prose(page)) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@pages
def test_every_path_that_is_named_exists(page: Path):
    named = set(_PATH.findall(_LINK.sub("", page.read_text())))
    assert [
        path for path in sorted(named) if not (any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists())
    ] == []


@pages
def test_every_name_in_the_package_resolves(page: Path):
    named = set(_NAME.findall(page.read_text())) - set(NO_NAMES)
    assert [name for name in sorted(named) if not resolves(name)] == []


@pages
def test_every_import_that_is_shown_can_be_made(page: Path):
    trees = [ast.parse(block) for block in blocks(page, "python")]
    imports = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    named = [f"{node.module}.{alias.name}" for node in imports for alias in node.names]
    assert [name for name in named if name.startswith("cong") and not resolves(name)] == []


@pages
def test_every_command_in_a_code_block_parses(page: Path):
    for command in in_blocks(page):
        if shlex.split(command)[1] in COMMANDS or command not in NOT_PARSED:
            context = parsed(command)
            profile = context.params.get("profile")
            assert not profile or profile == "my.toml" or load_profile(profile)


@pages
def test_every_command_in_the_text_has_the_options_that_it_is_shown_with(page: Path):
    for command in in_text(page):
        name = command.split()[1]
        if name in COMMANDS or command not in NOT_PARSED:
            known = {option for parameter in COMMANDS[name].params for option in parameter.opts} | {"--help"}
            assert set(options(command)) <= known, command


def test_what_is_excepted_is_still_shown():
    texts = " ".join(page.read_text() for page in PAGES)
    assert [words for words in (*NOT_PARSED, *NO_NAMES) if words not in texts] == []


@pytest.mark.parametrize(
    "command",
    [
        "cong run alpha.py --sed seeds=1",
        "cong fly alpha.py",
        "cong cancel --address http://a:1",
        "cong plan a.py --slots 3",
    ],
)
def test_a_mistaken_command_would_be_seen(command: str):
    with pytest.raises((KeyError, typer.BadParameter.__base__ or Exception)):
        parsed(command)


@pytest.mark.parametrize("name", ["cong.cells", "cong.methods.cong_x", "cong.report.costs.nothing"])
def test_a_mistaken_name_would_be_seen(name: str):
    assert not resolves(name)


def test_a_mistaken_path_would_be_seen():
    assert _PATH.findall("see `cluster/profiles`, and ~/.cache/cong/stores or HOST/cong/x") == ["cluster/profiles"]
