"""`CONG_MIRROR=DIR`: local copies of what experiments name by hub name and commit, where the hub cannot be reached.

    DIR/Qwen/Qwen2.5-3B-Instruct@aa8e72...      this commit, when there is such a directory
    DIR/Qwen/Qwen2.5-3B-Instruct                else this one

A copy without a commit in its name has it in a file `.revision`, in what `hf download --local-dir` or `git clone` left
there, or nowhere. One that is of another commit is refused. Of one that does not say it, and of a stand-in, which is no
copy at all (`cong/models/standin.py`), the user is informed, and it can stand for one commit only. A model of which it
holds the weights is identified by what it holds, and never taken for the hub's.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.graph.stage import values_in
from cong.models.digests import directory_digest
from cong.models.standin import stand_in

MIRROR = "CONG_MIRROR"
REVISION = ".revision"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def mirror(repo: str, revision: str | None = None) -> Path | None:
    """Return the copy of a hub name at a commit, None without a mirror; raise `UserError` when it has another one.

    Without a `revision` the copy may be of any.
    """
    path = copy_of(repo, revision)
    if path is None:
        return None
    if not path.is_dir():
        raise UserError(f"{MIRROR} is set, but {path} is not a directory")
    there = revisions_of(path)
    if revision is not None and there and there != {revision}:
        raise UserError(
            f"{path} is a copy of {repo} at {', '.join(sorted(there))}, and the experiment names {revision}: "
            f"put that one into {path.name}@{revision}"
        )
    return path


def copy_of(repo: str, revision: str | None) -> Path | None:
    """Return where the copy of a hub name is looked for, None without a mirror."""
    root = os.environ.get(MIRROR)
    if not root:
        return None
    own = Path(root) / f"{repo}@{revision}"
    return own if revision is not None and own.is_dir() else Path(root) / repo


def copy_identity(repo: str, revision: str) -> dict[str, Any]:
    """Return what the identity of a model has beside name and commit: nothing for the hub's own, and copies of it."""
    path = copy_of(repo, revision)
    if path is None or not path.is_dir() or revisions_of(path):
        return {}
    if said := stand_in(path):
        return {"stand_in": said.identity()}
    return {"copy": directory_digest(path)}


def revisions_of(directory: Path) -> set[str]:
    """Return the commits that a copy says it is of: one, none when it does not say, several when files disagree.

    A stand-in is of none, whatever else is written there.
    """
    if stand_in(directory):
        return set()
    if named := _COMMIT.fullmatch(directory.name.rpartition("@")[2]):
        return {named.group()}
    return {commit for commit in _stated(directory.resolve()) if _COMMIT.fullmatch(commit)}


def undeclared(values: Iterable[Any]) -> list[str]:
    """Return a line for every copy that stands for a commit without saying so; raise `UserError` for one of several.

    `values` are stages, or whatever else names a hub name with a commit in one of its fields.
    """
    wanted: dict[Path, set[str]] = defaultdict(set)
    for repo, revision in _pinned(values):
        path = copy_of(repo, revision)
        # What is missing, or of another commit, is reported by the stage that needs it.
        if path is not None and path.is_dir() and not revisions_of(path):
            wanted[path].add(revision)
    for path, revisions in wanted.items():
        if len(revisions) > 1:
            raise UserError(
                f"{path} would stand for several commits, {' and '.join(sorted(revisions))}: "
                f"put each into a directory {path.name}@COMMIT"
            )
    return [_undeclared_line(path, next(iter(revisions))) for path, revisions in wanted.items()]


def _undeclared_line(path: Path, revision: str) -> str:
    if said := stand_in(path):
        return f"{path} stands for {said.repo}, and is not that model: it is {said}"
    return (
        f"{path} does not say of which commit it is, and is taken for {revision} (a model under an identity of its "
        f"own): write the commit into {path / REVISION}"
    )


def _stated(directory: Path) -> Iterator[str]:
    if directory.parent.name == "snapshots":
        yield directory.name
    yield _first_line(directory / REVISION)
    # What `hf download --local-dir` leaves: per file the commit, the etag and the time.
    for path in (directory / ".cache" / "huggingface" / "download").rglob("*.metadata"):
        yield _first_line(path)
    head = _first_line(directory / ".git" / "HEAD")
    yield _first_line(directory / ".git" / head.removeprefix("ref: ")) if head.startswith("ref: ") else head


def _first_line(path: Path) -> str:
    try:
        with path.open() as file:
            return file.readline().strip()
    except OSError:
        return ""


def _pinned(values: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yield hub names with their commits from values, and from what their fields hold."""
    for value in values_in(values):
        repo = getattr(value, "repo", None)
        commit = getattr(value, "revision", None) or getattr(value, "commit", None)
        if isinstance(repo, str) and isinstance(commit, str):
            yield repo, commit
