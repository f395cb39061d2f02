"""The store: one directory per stage, complete when `_SUCCESS` is there and agrees with what it describes.

    {root}/{StageName}/{label}-{fp8}/
        ...            the outputs
        record.json    configuration, inputs, commit, versions, seconds, metrics
        _SUCCESS       size, time and SHA-256 of every file; written last, by atomic rename

A directory without a valid `_SUCCESS` is unfinished work: its stage continues there. One whose files do not agree with
`_SUCCESS`, or that was made from an input that has other content by now, is moved to `{root}/.discarded` and its stage
is computed again. One that holds a stage of another fingerprint (the 8 digits are equal by chance) is refused.
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
from cong.graph.journal import open_to_group, replace_text
from cong.graph.stage import LONGEST_NAME, Stage, clipped
from cong.graph.store import lease
from cong.graph.store.interface import StageStore, stale

SUCCESS = "_SUCCESS"
RECORD = "record.json"
BEGUN = ".fingerprint"
"""File in a stage's directory, finished or not: whose it is."""
ORIGIN = ".origin"
"""File in a directory that is a cache of a store on object storage: the URL of the store."""
NOT_FINISHED = "not finished"
FOREIGN = f"{SUCCESS} is of another fingerprint"
STALE = "made from an earlier "
"""What the fault of a stage begins with whose input was computed again since, with other content."""
_TIMED = (RECORD, "metrics.jsonl")
"""Outputs that hold times of day: two computations of the same content differ in them."""
_PRIVATE = "."  # Files whose names begin so (leases, temporary files) are not output.


class Store(StageStore):
    """Finished stages in directories below `root`. What the methods promise stands in `StageStore`."""

    shared = True

    def __init__(self, root: Path) -> None:
        self._root = root
        self._verified: set[tuple[str, int, int]] = set()
        self._read: dict[str, tuple[Any, dict[str, Any]]] = {}
        """Manifests by directory, each with what tells whether its file was replaced since."""

    def __reduce__(self) -> tuple[Any, ...]:
        # What was read here travels to no other process.
        return type(self), (self._root,)

    def __str__(self) -> str:
        return str(self.root)

    @property
    def root(self) -> Path:
        return self._root

    def check(self) -> None:
        pass  # A directory can be made.

    def prepare(self) -> None:
        probe = self.root / f".write-test-{os.getpid()}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                probe.write_bytes(bytes(1 << 20))
                _check_locks(probe)
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"the store {self.root} cannot be written: {error.strerror or error}") from error

    def fault(self, stage: Stage) -> str | None:
        if fault := self.damage(stage):
            return fault
        remade = stale(stage, self._manifest_in(self.directory(stage)), generation=self.generation)
        return remade and f"{STALE}{remade.title}"

    def damage(self, stage: Stage) -> str | None:
        """Return why the stage's directory does not hold its outputs, or None when it does."""
        directory = self.directory(stage)
        try:
            manifest = self._manifest_in(directory)
        except FileNotFoundError:
            return NOT_FINISHED
        except ValueError:
            return f"{SUCCESS} cannot be read"
        if manifest.get("fingerprint") != stage.fingerprint:
            return FOREIGN
        return next(self.file_faults(directory, manifest["files"]), None)

    def generation(self, stage: Stage) -> str | None:
        try:
            manifest = self._manifest_in(self.directory(stage))
        except (FileNotFoundError, ValueError):
            return None
        return generation_of(manifest) if manifest.get("fingerprint") == stage.fingerprint else None

    def check_place(self, stage: Stage) -> None:
        """Raise `UserError` when the stage's directory holds another stage: it would be overwritten."""
        directory = self.directory(stage)
        begun = directory / BEGUN
        other = begun.read_text() if begun.exists() else stage.fingerprint
        if other != stage.fingerprint or self.damage(stage) == FOREIGN:
            raise UserError(collision(stage, directory))

    def claim_place(self, stage: Stage) -> None:
        self.check_place(stage)
        begun = self.directory(stage) / BEGUN
        if not begun.exists():
            replace_text(begun, stage.fingerprint)

    def _manifest_in(self, directory: Path) -> dict[str, Any]:
        path = directory / SUCCESS
        status = path.stat()
        state = status.st_ino, status.st_mtime_ns, status.st_size
        known = self._read.get(str(path))
        if known is None or known[0] != state:
            known = self._read[str(path)] = state, json.loads(path.read_text())
        return known[1]

    def refresh(self, stage: Stage) -> None:
        pass  # Every look is at the files.

    def edition(self, stage: Stage) -> Any:
        try:
            return (self.directory(stage) / SUCCESS).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def hold(self, stage: Stage, *, while_waiting: Callable[[], bool]) -> AbstractContextManager[lease.Lease | None]:
        return lease.hold(self.directory(stage), while_waiting=while_waiting)

    def file_faults(self, directory: Path, files: dict[str, dict[str, Any]]) -> Iterator[str]:
        """Yield what is wrong with files of a directory, by their seals."""
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
        return json.loads((self.directory(stage) / RECORD).read_text())

    def publish(self, stage: Stage, record: dict[str, Any], *, check: Callable[[], None] = lambda: None) -> None:
        manifest = self.seal(stage, record)
        check()
        replace_text(self.directory(stage) / SUCCESS, json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def seal(self, stage: Stage, record: dict[str, Any]) -> dict[str, Any]:
        """Write the record, and return what `_SUCCESS` will hold."""
        directory = self.directory(stage)
        replace_text(directory / RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")
        for path in _outputs(directory):
            for part in (path, *(parent for parent in path.parents if directory in parent.parents)):
                open_to_group(part)
        files = {str(path.relative_to(directory)): _seal(path) for path in _outputs(directory)}
        inputs = record.get("input_generations", {})
        return {"fingerprint": stage.fingerprint, "stage": stage.name, "files": files, "inputs": inputs}

    def discard(self, stage: Stage, *, but: tuple[str, ...] = ()) -> None:
        directory = self.directory(stage)
        when = f"-{time.time_ns()}"
        name = clipped(f"{stage.name}-{directory.name}", LONGEST_NAME - len(when)) + when
        discarded = self.root / ".discarded" / name
        discarded.mkdir(parents=True)
        # `_SUCCESS` goes last: a kill in between leaves a stage that is found to be corrupt and cleared again.
        for path in sorted(directory.iterdir(), key=lambda path: path.name == SUCCESS):
            if not path.name.startswith(but):
                os.replace(path, discarded / path.name)

    def fetch(self, stages: Iterable[Stage]) -> None:
        pass  # They are there: so with the next three.

    def fetch_small(self, stage: Stage) -> None:
        pass

    def share(self, path: Path, *, name: str | None = None) -> None:
        pass

    def mirror(self) -> None:
        pass

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free


def generation_of(manifest: dict[str, Any]) -> str:
    """Return a digest of the content that a manifest names, but for what holds times of day."""
    content = {name: seal["sha256"] for name, seal in manifest["files"].items() if name not in _TIMED}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def collision(stage: Stage, directory: Path) -> str:
    """Return what to do about two stages that have one directory."""
    return (
        f"{directory} holds another stage than {stage.title}: by chance their fingerprints begin with the same 8 "
        "digits; give one of them another label, or keep one of them in another --store"
    )


def store_at(place: str | Path) -> StageStore:
    """Return the store in a directory or at a URL; a directory can be the cache of one at a URL."""
    if "://" not in str(place):
        origin = Path(place) / ORIGIN
        if not origin.exists():
            return Store(Path(place))
        place = origin.read_text()
    from cong.graph.remote import ObjectStore

    return ObjectStore(str(place))


def _check_locks(path: Path) -> None:
    """Raise `UserError` when the file system of a file has no locks: two processes could hold one lease."""
    import fcntl

    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"the file system of the store {path.parent} has no locks (flock: {error.strerror}): mount it with "
                "them (Lustre: -o flock), or choose another place with --store"
            ) from error


def _outputs(directory: Path) -> list[Path]:
    paths = (path for path in directory.rglob("*") if path.is_file() and path.name != SUCCESS)
    return sorted(path for path in paths if not any(p.startswith(_PRIVATE) for p in path.relative_to(directory).parts))


def _seal(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
