"""`cong init`: writes the files that one begins with, an experiment and a profile of one's own."""

import shlex
from pathlib import Path

from cong.errors import UserError
from cong.graph.resources import profile_path

# In a checkout the experiment is a link to the one in `experiments/`; a wheel holds a copy.
_STARTER = Path(__file__).parent / "starter"
_EXPERIMENT, _PROFILE = "quickstart.py", "laptop.toml"


def write_starter(directory: Path) -> list[Path]:
    """Write the starter and return its files; raise `UserError`, and write nothing, when one of them is there."""
    texts = {directory / name: text for name, text in _texts().items()}
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file, not a directory")
    if present := [path.name for path in texts if path.exists() or path.is_symlink()]:
        raise UserError(f"{directory} already holds {', '.join(present)}, and nothing is overwritten: name another one")
    directory.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    return list(texts)


def next_commands(directory: Path) -> list[str]:
    """Return what to type after `write_starter`."""
    enter = [] if directory == Path() else [f"cd {shlex.quote(str(directory))}"]
    return [*enter, f"cong plan {_EXPERIMENT}", f"cong run {_EXPERIMENT} --profile {_PROFILE}"]


def _texts() -> dict[str, str]:
    experiment = (_STARTER / _EXPERIMENT).read_text(encoding="utf-8")
    profile = profile_path("laptop").read_text(encoding="utf-8")
    return {
        # Its docstring names commands, and those are typed beside the file.
        _EXPERIMENT: experiment.replace("experiments/", ""),
        _PROFILE: f"# A profile of your own, chosen with --profile {_PROFILE}.\n{profile}",
        ".gitignore": (_STARTER / "gitignore").read_text(encoding="utf-8"),
    }
