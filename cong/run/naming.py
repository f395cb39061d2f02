"""The name under which a store keeps what is known of an experiment: its runs, its reports, its tracking.

It is the file's name and the scale, `alpha-tiny`. The first experiment file of a name takes it; another file of that
name gets a suffix made from its path, so that two experiments never share reports and runs:

    name_in(root, base="alpha-tiny", path=Path("b/alpha.py"))    # "alpha-tiny-3f2a61" where a/alpha.py came first
"""

import contextlib
import hashlib
import os
from pathlib import Path

RUNS = ".cong"
"""Directory of a store for the records of runs, one directory per name."""
SOURCE = "CONG_EXPERIMENT_FILE"
"""Environment variable that tells a submitted run where its experiment file lay before it was packed."""
_OWNER = "experiment"


def name_in(root: Path, *, base: str, path: Path) -> str:
    """Return the name of an experiment file in a store; nothing is written."""
    source = _source(path)
    owner = _owner_of(root / RUNS / base)
    if owner is None or owner == source or _has_moved(owner):
        return base
    return f"{base}-{hashlib.sha256(source.encode()).hexdigest()[:6]}"


def claim(root: Path, *, name: str, path: Path) -> None:
    """Note that a name belongs to an experiment file, unless it has an owner that is still there."""
    directory = root / RUNS / name
    directory.mkdir(parents=True, exist_ok=True)
    owner = _owner_of(directory)
    if owner is not None and _has_moved(owner):
        (directory / _OWNER).unlink(missing_ok=True)
    with contextlib.suppress(FileExistsError), (directory / _OWNER).open("x") as file:
        file.write(_source(path))


def _source(path: Path) -> str:
    return os.environ.get(SOURCE) or str(path.resolve())


def _owner_of(directory: Path) -> str | None:
    try:
        return (directory / _OWNER).read_text() or None
    except FileNotFoundError:
        return None


def _has_moved(owner: str) -> bool:
    """Tell whether the owner's file is gone; of a submitted experiment, whose file lies elsewhere, nobody can say."""
    return SOURCE not in os.environ and not Path(owner).exists()
