"""A store on object storage: what is finished lies in a bucket, and every machine works in a cache of its own.

    {url}/_SUCCESS/{StageName}/{fingerprint}          the manifest: files, record, edition; written last
    {url}/{StageName}/{slug}/{edition}/...            the outputs and `record.json`
    {url}/_LEASE/{StageName}/{fingerprint}/{number}   leases, each number created once and never removed

An edition is uploaded by one process and never changed, and a manifest names one edition. So two processes that publish
the same stage cannot mix their files: the later manifest counts, and both are whole. The cache is a store like any
other, and holds what was made or read on its machine; whether a stage is finished is decided by the bucket.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock

from cong.graph.journal import replace_text
from cong.graph.stage import Stage
from cong.graph.store import (
    BEGUN,
    NOT_FINISHED,
    ORIGIN,
    RECORD,
    STALE,
    SUCCESS,
    StageStore,
    Store,
    generation_of,
    lease,
)
from cong.graph.store.bucket import Bucket, BucketLease
from cong.graph.store.interface import stale

CACHE = "CONG_CACHE"
SMALL_BYTES = 1 << 20
_LEASES = "_LEASE"
_RUNS = ".cong"


class Damaged(RuntimeError):
    """What the bucket holds of a stage is not what was published."""


class ObjectStore(StageStore):
    """Finished stages below a URL, with a cache on this machine, whose root is `root`. See `StageStore`."""

    shared = False

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._cache = Store(cache_of(self.url))
        self._bucket = Bucket(self.url)
        self._finished: dict[str, str] = {}
        """Of the stages of the latest plan those that are finished: fingerprint and key of the manifest."""
        self._manifests: dict[str, str] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # On another machine the cache is another directory.
        return type(self), (self.url,)

    def __str__(self) -> str:
        return f"{self.url} (cached in {self.root})"

    @property
    def root(self) -> Path:
        return self._cache.root

    def check(self) -> None:
        self._bucket.check()

    def prepare(self) -> None:
        self._cache.prepare()
        self._bucket.check_writing()

    def faults(self, stages: Iterable[Stage]) -> dict[str, str]:
        stages = list(stages)
        wanted = {stage.fingerprint: _success(stage) for stage in stages}
        present = set(self._bucket.keys(SUCCESS))
        self._finished = {fingerprint: key for fingerprint, key in wanted.items() if key in present}
        self._manifests.clear()
        absent = {fingerprint: NOT_FINISHED for fingerprint, key in wanted.items() if key not in present}
        # One listing tells what is there; only what could be stale is read.
        return absent | super().faults(item for item in stages if item.inputs and item.fingerprint in self._finished)

    def fault(self, stage: Stage) -> str | None:
        if not stage.inputs and stage.fingerprint in self._finished:
            return None
        text = self._manifest(stage)
        if text is None:
            return NOT_FINISHED
        remade = stale(stage, json.loads(text), generation=self.generation)
        return remade and f"{STALE}{remade.title}"

    def generation(self, stage: Stage) -> str | None:
        text = self._manifest(stage)
        return generation_of(json.loads(text)) if text else None

    def claim_place(self, stage: Stage) -> None:
        # Nothing is overwritten: in the bucket a fingerprint is whole, and the directory is a cache.
        begun = self.directory(stage) / BEGUN
        if begun.exists() and begun.read_text() != stage.fingerprint:
            self.discard(stage, but=(".lease",))
        replace_text(begun, stage.fingerprint)

    def refresh(self, stage: Stage) -> None:
        self._forget(stage)

    def edition(self, stage: Stage) -> str | None:
        self._forget(stage)
        text = self._manifest(stage)
        return json.loads(text)["edition"] if text else None

    def record(self, stage: Stage) -> dict[str, Any]:
        return json.loads(self._needed(stage))["record"]

    def hold(self, stage: Stage, *, while_waiting: Callable[[], bool]) -> AbstractContextManager[lease.Lease | None]:
        self.directory(stage).mkdir(parents=True, exist_ok=True)
        held = BucketLease(self._bucket, f"{_LEASES}/{stage.name}/{stage.fingerprint}", directory=_place(stage))
        return lease.holding(held, while_waiting=while_waiting)

    def publish(self, stage: Stage, record: dict[str, Any], *, check: Callable[[], None] = lambda: None) -> None:
        directory, edition = self.directory(stage), uuid.uuid4().hex[:12]
        manifest = self._cache.seal(stage, record) | {"edition": edition, "directory": _place(stage), "record": record}
        for name in manifest["files"]:
            self._bucket.upload(directory / name, f"{_place(stage)}/{edition}/{name}")
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        # The upload may have taken long. Should the lease be lost between this line and the next all the same, then the
        # bucket holds two whole editions, and the later manifest counts.
        check()
        self._bucket.write(_success(stage), text.encode())
        replace_text(directory / SUCCESS, text)
        self._manifests[stage.fingerprint] = text

    def discard(self, stage: Stage, *, but: tuple[str, ...] = ()) -> None:
        self._cache.discard(stage, but=but)

    def free_bytes(self) -> int:
        return self._cache.free_bytes()

    def fetch(self, stages: Iterable[Stage]) -> None:
        _write(self.root / ORIGIN, self.url.encode())
        for stage in stages:
            # Another process may have recomputed it since the plan.
            self._forget(stage)
            text = self._needed(stage)
            lock = self.root / ".locks" / f"{stage.name}-{stage.fingerprint}"
            lock.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(str(lock)):
                if not self._is_here(stage, text):
                    self._download(stage, text)

    def fetch_small(self, stage: Stage) -> None:
        self._forget(stage)
        text = self._needed(stage)
        if not self._is_here(stage, text):
            manifest = json.loads(text)
            small = [name for name, seal in manifest["files"].items() if seal["size"] <= SMALL_BYTES]
            self._copy(manifest, small, to=self.directory(stage))

    def share(self, path: Path, *, name: str | None = None) -> None:
        for file in sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]:
            self._bucket.upload(file, name or str(file.relative_to(self.root)))

    def mirror(self) -> None:
        for key, data in self._bucket.read_all(self._bucket.keys(_RUNS)).items():
            _write(self.root / key, data)
        finished = self._bucket.keys(SUCCESS)
        for data in self._bucket.read_all(finished).values():
            manifest = json.loads(data)
            success = self.root / manifest["directory"] / SUCCESS
            # Its files stay where they are: until they are fetched, the cache holds a stage that is not whole.
            if not success.exists() or success.read_bytes() != data:
                _write(success.with_name(RECORD), json.dumps(manifest["record"]).encode())
                _write(success, data)
        self._mirror_leases({key.removeprefix(SUCCESS) for key in finished})

    def _mirror_leases(self, finished: set[str]) -> None:
        """Leave the leases of unfinished stages where `cong status` looks for those of a store on a disk."""
        # The keys are in their order: of each stage the last one is that of the latest lease.
        latest = {key.rpartition("/")[0].removeprefix(_LEASES): key for key in self._bucket.keys(_LEASES)}
        for key, data in self._bucket.read_all(key for of, key in latest.items() if of not in finished).items():
            holder = json.loads(data)
            path = self.root / holder["directory"] / lease.LEASE
            if holder.get("released"):
                path.unlink(missing_ok=True)
            else:
                _write(path, data)
                os.utime(path, (time.time(), self._bucket.modified(key)))

    def _manifest(self, stage: Stage) -> str | None:
        """Return the manifest of a stage. The first of a plan's that is asked for brings those of all of them."""
        if stage.fingerprint not in self._manifests:
            known = self._finished if stage.fingerprint in self._finished else {stage.fingerprint: _success(stage)}
            names = {key: fingerprint for fingerprint, key in known.items() if fingerprint not in self._manifests}
            found = self._bucket.read_all(names)
            self._manifests |= {names[key]: data.decode() for key, data in found.items()}
        return self._manifests.get(stage.fingerprint)

    def _needed(self, stage: Stage) -> str:
        text = self._manifest(stage)
        if text is None:
            raise Damaged(f"{stage.title} is not in {self.url} any more: run again to recompute it")
        return text

    def _forget(self, stage: Stage) -> None:
        self._finished.pop(stage.fingerprint, None)
        self._manifests.pop(stage.fingerprint, None)

    def _is_here(self, stage: Stage, text: str) -> bool:
        success = self.directory(stage) / SUCCESS
        return success.exists() and success.read_text() == text and self._cache.damage(stage) is None

    def _download(self, stage: Stage, text: str) -> None:
        """Bring a stage into the cache whole, or not at all; raise `Damaged` when the bucket does not hold it whole."""
        manifest, temporary = json.loads(text), self.root / ".fetching" / _place(stage)
        shutil.rmtree(temporary, ignore_errors=True)
        fault = self._copy(manifest, list(manifest["files"]), to=temporary)
        if fault:
            if self._bucket.read(_success(stage)) == text.encode():
                self._bucket.remove(_success(stage))
            self._forget(stage)
            raise Damaged(f"{stage.title} in {self.url}: {fault}: run again to recompute it")
        _write(temporary / SUCCESS, text.encode())
        directory = self.directory(stage)
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            self.discard(stage)
        os.rename(temporary, directory)

    def _copy(self, manifest: dict[str, Any], names: list[str], *, to: Path) -> str | None:
        """Download files of an edition; return what is wrong with one, or None."""
        for name in names:
            path, seal = to / name, manifest["files"][name]
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._bucket.download(f"{manifest['directory']}/{manifest['edition']}/{name}", path)
            except FileNotFoundError:
                return f"{name} is missing"
            if fault := next(self._cache.file_faults(to, {name: seal}), None):
                return fault
            # The time that was sealed tells that the file need not be read again.
            os.utime(path, ns=(seal["mtime_ns"], seal["mtime_ns"]))
        return None


def cache_of(url: str) -> Path:
    """Return the directory of this machine in which a store is cached: below `CONG_CACHE`, or the user's cache."""
    home = os.environ.get(CACHE) or Path("~/.cache/cong/stores").expanduser()
    return Path(home).resolve() / sha256(url.encode()).hexdigest()[:12]


def _place(stage: Stage) -> str:
    return f"{stage.name}/{stage.slug}"


def _success(stage: Stage) -> str:
    return f"{SUCCESS}/{stage.name}/{stage.fingerprint}"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, data.decode())
