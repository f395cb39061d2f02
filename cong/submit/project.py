"""Which files belong to a project: what git lists, without what may hold secrets or lies elsewhere.

project = project_files(root, never=lambda path: path.name == "runs", include=(".env",))
project.files       names relative to the root, and paths
project.left_out    what git lists and is not taken: links out of the project, .env, keys
"""

import fnmatch
import functools
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from cong.errors import UserError

SECRETS = (
    ".env", ".env.*", "*.env", ".envrc", ".netrc", "_netrc", ".pypirc", ".npmrc", ".git-credentials", ".htpasswd",
    ".pgpass", "*.pem", "*.key", "*.p8", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk", "id_rsa*",
    "id_dsa*", "id_ecdsa*", "id_ed25519*", "credentials", "credentials.*", "client_secret*", "service-account*.json",
    "service_account*.json", "secrets.*", "auth_token", "kubeconfig", "*.kubeconfig",
)  # fmt: skip
"""Names, in any case, of files that usually hold passwords, tokens or private keys."""
SECRET_DIRECTORIES = {".ssh", ".aws", ".gnupg", ".azure", ".kube", ".docker"}
_PUBLIC = ("*.example", "*.sample", "*.template", "*.pub")
_IGNORE_FILES = (".gitignore", ".rayignore")


@dataclass(frozen=True, kw_only=True)
class Project:
    """The files of a project."""

    root: Path
    files: dict[str, Path]
    left_out: tuple[str, ...]


def project_files(root: Path, *, never: Callable[[Path], bool], include: tuple[str, ...] = ()) -> Project:
    """Return the files of the project at `root`; raise `UserError` when a name of `include` is not among them.

    `never` tells directories that are no part of a project. Linked directories are never followed.
    """
    listed = {str(path.relative_to(root)): path for path in _listed(root, never)}
    unknown = [name for name in include if name not in listed]
    if unknown:
        raise UserError(f"--include {unknown[0]}: {root} has no such file, or a .gitignore or .rayignore leaves it out")
    kept_back = {name for name, path in listed.items() if name not in include and _is_kept_back(path, root)}
    files = {name: path for name, path in sorted(listed.items()) if name not in kept_back}
    return Project(root=root, files=files, left_out=tuple(sorted(kept_back)))


def _listed(root: Path, never: Callable[[Path], bool]) -> Iterator[Path]:
    names = _listed_by_git(root)
    if names is None:
        yield from _walk(root, (), never)
        return

    @functools.cache
    def rules_below(directory: Path) -> tuple | None:
        """The rules of `.rayignore`, no file of git's, for what lies in a directory; None where nothing is packed."""
        outer = () if directory == root else rules_below(directory.parent)
        if outer is None or (directory != root and (never(directory) or _ignored(directory, outer, "/"))):
            return None
        return (*outer, *_rules_of(directory, (".rayignore",)))

    for path in (root / name for name in names):
        rules = rules_below(path.parent)
        if rules is not None and path.is_file() and not _ignored(path, rules, ""):
            yield path


def _listed_by_git(root: Path) -> list[str] | None:
    """Return the names that git lists, tracked or not ignored; None where there is no repository or no git."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def _is_kept_back(path: Path, root: Path) -> bool:
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        return True
    inside = PurePath(path.relative_to(root))
    name = inside.name.lower()
    if any(fnmatch.fnmatch(name, pattern) for pattern in _PUBLIC):
        return False
    # A program may be called credentials.py; what it is called says nothing of what it holds.
    if inside.suffix == ".py":
        return False
    return bool(SECRET_DIRECTORIES & set(inside.parts)) or any(fnmatch.fnmatch(name, secret) for secret in SECRETS)


def _walk(directory: Path, rules: tuple, never: Callable[[Path], bool]) -> Iterator[Path]:
    rules = (*rules, *_rules_of(directory, _IGNORE_FILES))
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            if not never(path) and not _ignored(path, rules, "/"):
                yield from _walk(path, rules, never)
        elif entry.is_file() and not _ignored(path, rules, ""):
            yield path


def _rules_of(directory: Path, names: tuple[str, ...]) -> Iterator[tuple]:
    import pathspec

    for name in names:
        if (directory / name).is_file():
            # Bytes that are no UTF-8 stand for themselves, as in the names that `os.scandir` gives.
            lines = os.fsdecode((directory / name).read_bytes()).removeprefix("\ufeff").split("\n")
            yield directory, pathspec.GitIgnoreSpec.from_lines(line.removesuffix("\r") for line in lines)


def _ignored(path: Path, rules: tuple, ending: str) -> bool:
    """Tell whether a path is ignored: the innermost file of rules that speaks of it decides, as git does it."""
    for base, spec in reversed(rules):
        decision = spec.check_file(f"{path.relative_to(base)}{ending}").include
        if decision is not None:
            return decision
    return False
