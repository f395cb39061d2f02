"""The store: one directory per stage, complete when `_SUCCESS` is there and agrees with what it describes.

    {root}/{StageName}/{label}-{fp8}/
        ...            the outputs
        record.json    configuration, inputs, commit, versions, seconds, metrics
        _SUCCESS       size, time and SHA-256 of every file; written last, by atomic rename

A directory without a valid `_SUCCESS` is unfinished work: its stage continues there. One whose files do not agree with
`_SUCCESS` is moved to `{root}/.discarded` and its stage is made anew.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.graph import lease
from cong.graph.journal import replace_text
from cong.graph.stage import Stage

SUCCESS = "_SUCCESS"
RECORD = "record.json"
ORIGIN = ".origin"
"""File in a directory that is a cache of a store on object storage: the URL of the store."""
NOT_FINISHED = "not finished"
_PRIVATE = "."  # Files whose names begin so (leases, temporary files) are not output.


class Store:
    """Finished stages under `root`."""

    shared = True
    """Whether every node sees the same directories."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: set[tuple[str, int, int]] = set()

    def __str__(self) -> str:
        return str(self.root)

    def check(self) -> None:
        """Raise `UserError` when the store is known not to be there; a directory can be made."""

    def prepare(self) -> None:
        """Make the root and show that it can be written; raise `UserError` when it cannot, or has no MiB left."""
        probe = self.root / f".write-test-{os.getpid()}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                probe.write_bytes(bytes(1 << 20))
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"the store {self.root} cannot be written: {error.strerror}") from error

    def directory(self, stage: Stage) -> Path:
        """Return the directory of a stage, whether or not it exists."""
        return self.root / stage.name / stage.slug

    def is_complete(self, stage: Stage) -> bool:
        """Tell whether the stage's outputs are there, are whole and belong to this very fingerprint."""
        return self.fault(stage) is None

    def fault(self, stage: Stage) -> str | None:
        """Return why the stage cannot be used, or None when it can."""
        directory = self.directory(stage)
        try:
            manifest = json.loads((directory / SUCCESS).read_text())
        except FileNotFoundError:
            return NOT_FINISHED
        except (json.JSONDecodeError, UnicodeDecodeError):
            return f"{SUCCESS} cannot be read"
        if manifest.get("fingerprint") != stage.fingerprint:
            return f"{SUCCESS} is of another fingerprint"
        return next(self._faults(directory, manifest["files"]), None)

    def faults(self, stages: Iterable[Stage]) -> dict[str, str]:
        """Return by fingerprint why stages cannot be used, of those that cannot."""
        return {stage.fingerprint: fault for stage in stages if (fault := self.fault(stage)) is not None}

    def edition(self, stage: Stage) -> Any:
        """Return what changes whenever the stage is made anew, None while it is not finished."""
        try:
            return (self.directory(stage) / SUCCESS).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def hold(self, stage: Stage, *, while_waiting: Callable[[], bool]) -> AbstractContextManager[lease.Lease | None]:
        """Hold the lease of a stage: see `lease.hold`."""
        return lease.hold(self.directory(stage), while_waiting=while_waiting)

    def _faults(self, directory: Path, files: dict[str, dict[str, Any]]) -> Iterator[str]:
        for name, seal in files.items():
            path = directory / name
            try:
                status = path.stat()
            except FileNotFoundError:
                yield f"{name} is missing"
                continue
            if status.st_size != seal["size"]:
                yield f"{name} has {status.st_size} bytes instead of {seal['size']}"
            # As git's index does: a file of the same size and time is taken as unchanged, any other is read, once.
            elif status.st_mtime_ns != seal["mtime_ns"]:
                key = (str(path), status.st_mtime_ns, status.st_size)
                if key in self._verified:
                    continue
                if _sha256(path) == seal["sha256"]:
                    self._verified.add(key)
                else:
                    yield f"{name} was changed after the stage had finished"

    def record(self, stage: Stage) -> dict[str, Any]:
        """Return the record of a finished stage."""
        return json.loads((self.directory(stage) / RECORD).read_text())

    def publish(self, stage: Stage, record: dict[str, Any], *, check: Callable[[], None] = lambda: None) -> None:
        """Write the record, then `_SUCCESS`: from here on the stage is complete. `check` may raise before that."""
        manifest = self.seal(stage, record)
        check()
        replace_text(self.directory(stage) / SUCCESS, json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def seal(self, stage: Stage, record: dict[str, Any]) -> dict[str, Any]:
        """Write the record, and return what `_SUCCESS` will hold."""
        directory = self.directory(stage)
        replace_text(directory / RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")
        files = {str(path.relative_to(directory)): _seal(path) for path in _outputs(directory)}
        return {"fingerprint": stage.fingerprint, "stage": stage.name, "files": files}

    def discard(self, stage: Stage, *, but: tuple[str, ...] = ()) -> None:
        """Move what a stage's directory holds aside, but for names that begin as one of `but`."""
        directory = self.directory(stage)
        discarded = self.root / ".discarded" / f"{stage.name}-{directory.name}-{time.time_ns()}"
        discarded.mkdir(parents=True)
        # `_SUCCESS` goes last: a kill in between leaves a stage that is found to be corrupt and cleared again.
        for path in sorted(directory.iterdir(), key=lambda path: path.name == SUCCESS):
            if not path.name.startswith(but):
                os.replace(path, discarded / path.name)

    def fetch(self, stages: Iterable[Stage]) -> None:
        """Bring the files of finished stages into their directories, where they are already unless they are remote."""

    def fetch_small(self, stage: Stage) -> None:
        """Bring the small files of a stage that was just finished, such as its curves."""

    def share(self, path: Path, *, name: str | None = None) -> None:
        """Let other machines see what is no stage: a report, or under another name the record of a run."""

    def mirror(self) -> None:
        """Bring what `cong status` reads."""

    def free_bytes(self) -> int:
        """Return the free space on the store's disk."""
        return shutil.disk_usage(self.root).free


def store_at(place: str | Path) -> Store:
    """Return the store in a directory or at a URL; a directory can be the cache of one at a URL."""
    if "://" not in str(place):
        origin = Path(place) / ORIGIN
        if not origin.exists():
            return Store(Path(place))
        place = origin.read_text()
    from cong.graph.remote import ObjectStore

    return ObjectStore(str(place))


def _outputs(directory: Path) -> list[Path]:
    paths = (path for path in directory.rglob("*") if path.is_file() and path.name != SUCCESS)
    return sorted(path for path in paths if not any(p.startswith(_PRIVATE) for p in path.relative_to(directory).parts))


def _seal(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
