"""Packs a project for a cluster: the experiment's repository, this very `cong`, and the profile, as one zip file.

    packed = pack(experiment=Path("alpha.py"), profile=profile_path("l40x4"), root=None, store=Path("/shared/runs"))
    packed.archive       the zip file's bytes; equal projects give equal bytes
    packed.experiment    the experiment's path inside of it

What is packed is what git lists of the project, without what `.rayignore` names; where there is no repository, what
`.gitignore` and `.rayignore` leave. Repositories, virtual environments, caches and stores are never packed. Links out
of the project, and files that hold secrets by their names (`.env`, keys), are left out unless they are asked for: a
cluster shows a job's package to everybody who can open its dashboard. `cong` travels along, so that fingerprints are
computed by the same code here and there, whatever version a cluster may have installed.
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cong
from cong.errors import UserError
from cong.run.naming import RUNS
from cong.submit.project import Project, project_files

LIMIT_BYTES = 100 << 20
SHOWN = 5
CARRIED = "cong_submitted"
"""Directory inside the archive for what is no part of the project: the profile."""
_NEVER = {".git", ".hg", ".venv", "venv", "__pycache__", "node_modules", ".pytest_cache", ".ruff_cache", "mlruns"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A packed project."""

    root: Path
    archive: bytes
    files: int
    left_out: tuple[str, ...]
    """Files that git lists and that were not packed: links out of the project, and what may hold secrets."""
    experiment: str
    profile: str


def pack(*, experiment: Path, profile: Path, root: Path | None, store: Path, include: tuple[str, ...] = ()) -> Packed:
    """Pack the project of an experiment file; raise `UserError` when it is too large or does not hold the file.

    `include` names files, relative to the root, that are packed although they may hold secrets or are links.
    """
    experiment = experiment.resolve()
    root = project_root(experiment) if root is None else root.resolve()
    if not root.is_dir():
        raise UserError(f"--working-dir {root}: there is no such directory")
    if not experiment.is_relative_to(root):
        raise UserError(f"--working-dir {root} does not hold the experiment file {experiment}")
    project = project_files(root, never=lambda path: _never(path, store), include=include)
    inside = str(experiment.relative_to(root))
    files = _all_files(project, inside, profile)
    check_size(files, root)
    carried = f"{CARRIED}/{profile.name}"
    return Packed(
        root=root,
        archive=_zip(files),
        files=len(files),
        left_out=project.left_out,
        experiment=inside,
        profile=carried,
    )


def _all_files(project: Project, experiment: str, profile: Path) -> dict[str, Path]:
    if experiment not in project.files:
        raise UserError(f"{experiment} is left out of the package by a .gitignore or .rayignore of {project.root}")
    # This very package replaces another one of that name: it is what `cong run` would use here, too.
    others = {name: path for name, path in project.files.items() if not name.startswith("cong/")}
    return others | _own_package() | {f"{CARRIED}/{profile.name}": profile}


def left_out(packed: Packed) -> list[str]:
    """Return what a reader has to know of the files that were not packed."""
    if not packed.left_out:
        return []
    names = ", ".join(packed.left_out[:SHOWN]) + (", ..." if len(packed.left_out) > SHOWN else "")
    return [f"not packed, as links out of the project or possible secrets: {names}; --include FILE sends one"]


def project_root(experiment: Path) -> Path:
    """Return the root of the experiment file's git repository, or its directory where there is none."""
    return next((parent for parent in experiment.parents if (parent / ".git").exists()), experiment.parent)


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
            _check_name(name)
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.external_attr = (path.stat().st_mode & 0o777) << 16
            archive.writestr(entry, _content(path), compress_type=zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be packed: {error.strerror}; name it in .gitignore or .rayignore") from error


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{name!r} cannot be sent: its name is no text; rename it or name it in .rayignore") from error
