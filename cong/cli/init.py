"""`cong init`: a directory with a first experiment and a profile of one's own."""

from importlib import resources
from pathlib import Path

from cong.errors import UserError

FILES = ("quickstart.py", "my_machine.toml")
IGNORED = "runs/\n__pycache__/\n"


def write_starter(directory: Path) -> list[Path]:
    """Write the starter into a directory; raise `UserError`, before anything is written, where a file would be lost."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"cong init {directory}: there is a file of that name")
    content = {name: resources.files("cong.starter").joinpath(name).read_text() for name in FILES}
    content[".gitignore"] = IGNORED
    there = [name for name in content if (directory / name).exists()]
    if there:
        raise UserError(f"cong init {directory}: {there[0]} is there already; choose another directory")
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (directory / name).write_text(text)
    return [directory / name for name in content]
