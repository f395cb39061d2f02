"""Packs a project for a cluster: the experiment's repository, this very `cong`, and the profile, as one zip file.

    packed = pack(experiment=Path("experiments/alpha.py"), profile="l40x4", stores=(Path("/shared/runs"),))
    packed.archive       the zip file's bytes; equal projects give equal bytes
    packed.experiment    the experiment's path inside of it

`.gitignore` and `.rayignore` are respected, at every level; repositories, virtual environments, caches and stores are
never packed. `cong` travels along, so that fingerprints are computed by the same code here and there, whatever version
a cluster may have installed.
"""

import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cong
from cong.errors import UserError
from cong.run.records import RUNS

LIMIT_BYTES = 100 << 20
SHOWN = 5
CARRIED = "cong_submitted"
"""Directory inside the archive for what is no part of the project: the profile."""
_IGNORE_FILES = (".gitignore", ".rayignore")
_NEVER = {".git", ".hg", ".venv", "venv", "__pycache__", "node_modules", ".pytest_cache", ".ruff_cache", "mlruns"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A packed project."""

    root: Path
    archive: bytes
    files: int
    experiment: str
    profile: str


def pack(*, experiment: Path, profile: Path, root: Path | None, store: Path) -> Packed:
    """Pack the project of an experiment file; raise `UserError` when it is too large or does not hold the file."""
    experiment = experiment.resolve()
    root = project_root(experiment) if root is None else root.resolve()
    if not root.is_dir():
        raise UserError(f"--working-dir {root}: there is no such directory")
    if not experiment.is_relative_to(root):
        raise UserError(f"--working-dir {root} does not hold the experiment file {experiment}")
    files = project_files(root, store=store)
    inside = str(experiment.relative_to(root))
    if inside not in files:
        raise UserError(f"{inside} is left out of the package by a .gitignore or .rayignore of {root}")
    carried = f"{CARRIED}/{profile.name}"
    # This very package replaces another one of that name: it is what `cong run` would use here, too.
    files = {name: path for name, path in files.items() if not name.startswith("cong/")} | _own_package()
    files[carried] = profile
    check_size(files, root)
    return Packed(root=root, archive=_zip(files), files=len(files), experiment=inside, profile=carried)


def project_root(experiment: Path) -> Path:
    """Return the root of the experiment file's git repository, or its directory where there is none."""
    return next((parent for parent in experiment.parents if (parent / ".git").exists()), experiment.parent)


def project_files(root: Path, *, store: Path) -> dict[str, Path]:
    """Return what belongs to a project: names relative to its root, and paths. Linked directories are left out."""
    return {str(path.relative_to(root)): path for path in sorted(_walk(root, root, (), store))}


def check_size(files: dict[str, Path], root: Path) -> None:
    """Raise `UserError` when the files are too many bytes to be sent; it names the largest."""
    sizes = {name: path.stat().st_size for name, path in files.items()}
    total = sum(sizes.values())
    if total <= LIMIT_BYTES:
        return
    largest = [name for name in sorted(sizes, key=lambda name: -sizes[name])[:SHOWN] if sizes[name] >= 1 << 20]
    named = ", ".join(f"{name} ({sizes[name] / 2**20:.0f} MiB)" for name in largest)
    raise UserError(
        f"{root} holds {total / 2**20:.0f} MiB, more than the {LIMIT_BYTES >> 20} MiB that are sent to a cluster; the "
        f"largest files are {named}: name them in .gitignore or .rayignore, or give a smaller --working-dir"
    )


def _walk(directory: Path, root: Path, rules: tuple, store: Path) -> Iterator[Path]:
    rules = (*rules, *_rules_of(directory))
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            if not _never(path, store) and not _ignored(path, rules, "/"):
                yield from _walk(path, root, rules, store)
        elif entry.is_file() and not _ignored(path, rules, ""):
            yield path


def _rules_of(directory: Path) -> Iterator[tuple]:
    import pathspec

    for name in _IGNORE_FILES:
        if (directory / name).is_file():
            lines = (directory / name).read_text(errors="replace").splitlines()
            yield directory, pathspec.GitIgnoreSpec.from_lines(lines)


def _ignored(path: Path, rules: tuple, ending: str) -> bool:
    """Tell whether a path is ignored: the innermost file of rules that speaks of it decides, as git does it."""
    for base, spec in reversed(rules):
        found = spec.check_file(f"{path.relative_to(base)}{ending}").include
        if found is not None:
            return found
    return False


def _never(path: Path, store: Path) -> bool:
    if path.name in _NEVER or path.name.endswith(".egg-info") or path == store:
        return True
    return (path / RUNS).is_dir() or (path / "pyvenv.cfg").is_file()


def _own_package() -> dict[str, Path]:
    package = Path(cong.__file__).resolve().parent
    return {
        f"cong/{path.relative_to(package)}": path
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def _zip(files: dict[str, Path]) -> bytes:
    """Return a zip file that depends on names and content alone: Ray recognises a package that it has by its digest."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(files.items()):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.external_attr = (path.stat().st_mode & 0o777) << 16
            archive.writestr(entry, path.read_bytes(), compress_type=zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
