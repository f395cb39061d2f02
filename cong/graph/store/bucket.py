"""Object storage behind a URL, through fsspec: the few calls that a store makes, with an outage waited for; leases.

    bucket = Bucket("s3://bucket/prefix")
    bucket.create("lease/1", b"...")     # True for exactly one of all who create it

Address, region and credentials are what the file system itself takes from the environment (`AWS_ENDPOINT_URL`,
`AWS_ACCESS_KEY_ID`, ...): no secret stands in a URL.
"""

# pyright: basic
# fsspec states no types of what is used here.

import errno
import logging
import sys
import time
import uuid
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.graph.store import lease

PATIENCE_SECONDS = 300.0
RETRY_SECONDS = 5.0
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_FINAL = (FileNotFoundError, PermissionError, NotImplementedError, TypeError, UserError)
_OURS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE}


class Outage(OSError):
    """The bucket did not answer for a long time."""


class Bucket:
    """The objects below a URL; keys are relative to it. What fails is tried again for `PATIENCE_SECONDS`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def check(self) -> None:
        """Raise `UserError` at once, without patience, when nothing can be listed here."""
        fs, base = self._opened
        try:
            try:
                fs.ls(base)
            except FileNotFoundError:
                # A prefix that holds nothing yet does not exist, but its bucket does.
                fs.ls(base.split("/")[0])
        except FileNotFoundError as error:
            raise UserError(f"the store {self.url}: there is no bucket {base.split('/')[0]}") from error
        except Exception as error:
            raise UserError(self._unusable(error)) from error

    def check_writing(self) -> None:
        """Raise `UserError` when nothing can be created here, or a thing twice: leases would not exclude each other."""
        from fsspec import AbstractFileSystem
        from fsspec.asyn import AsyncFileSystem

        key = f".write-test-{uuid.uuid4().hex}"
        fs, base = self._opened
        # What fsspec does for a file system that has no such call of its own is to look first, and then to write.
        looks_first = type(fs).pipe_file is AbstractFileSystem.pipe_file and not isinstance(fs, AsyncFileSystem)
        try:
            fs.pipe_file(f"{base}/{key}", b"1", mode="create")
            again = self._created(key, b"2")
            fs.rm_file(f"{base}/{key}")
        except Exception as error:
            raise UserError(self._unusable(error)) from error
        if again or looks_first:
            raise UserError(
                f"the store {self.url} cannot create an object only if it is absent, so it can hold no lease"
            )

    def read(self, key: str) -> bytes | None:
        """Return the bytes of an object, or None when there is none."""
        try:
            # From 0 on: of a whole object s3fs asks the size first, in a request of its own.
            return self._call("cat_file", self._path(key), start=0)
        except FileNotFoundError:
            return None

    def read_all(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of those of the objects that there are, read side by side."""
        names = {self._path(key): key for key in keys}
        return self._patiently(lambda: self._read_all(names)) if names else {}

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of all objects below a prefix, in their order."""
        start = len(self._path(""))
        # A prefix below which something comes up while s3fs looks is itself found, as if it were an object.
        below = f"{self._path(prefix)}/"
        return sorted(path[start:] for path in self._call("find", below) if path.startswith(below))

    def modified(self, key: str) -> float:
        """Return when an object was written, as a Unix time by the clock of the storage."""
        return self._call("modified", self._path(key)).timestamp()

    def write(self, key: str, data: bytes) -> None:
        """Write an object, whether or not there is one."""
        self._call("pipe_file", self._path(key), data)

    def create(self, key: str, data: bytes) -> bool:
        """Create an object unless there is one; return whether it is ours. `data` has to be unlike all others'."""
        return self._patiently(lambda: self._created(key, data))

    def remove(self, key: str) -> None:
        """Remove an object."""
        self._call("rm_file", self._path(key))

    def upload(self, path: Path, key: str) -> None:
        """Copy a file into an object."""
        self._call("put_file", str(path), self._path(key))

    def download(self, key: str, path: Path) -> None:
        """Copy an object into a file; raise `FileNotFoundError` when there is none."""
        self._call("get_file", self._path(key), str(path))

    def _created(self, key: str, data: bytes) -> bool:
        fs, base = self._opened
        try:
            fs.pipe_file(f"{base}/{key}", data, mode="create")
            return True
        except Exception:
            # Storages tell "there is one" in different ways, and an answer that was lost makes a client ask twice:
            # only the object itself says whether it is ours. Without one the error was another.
            try:
                return fs.cat_file(f"{base}/{key}", start=0) == data
            except FileNotFoundError:
                pass
            raise

    def _read_all(self, names: dict[str, str]) -> dict[str, bytes]:
        found = dict(zip(names.values(), self._opened[0].cat_ranges(list(names), 0, None), strict=True))
        for data in found.values():
            if isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
                raise data
        return {key: data for key, data in found.items() if isinstance(data, bytes)}

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return self._patiently(lambda: getattr(self._opened[0], name)(*arguments, **options))

    def _patiently(self, call: Any) -> Any:
        end = time.monotonic() + PATIENCE_SECONDS
        waited = False
        while True:
            try:
                return call()
            except _FINAL:
                raise
            except Exception as error:
                # Every file system has its own classes for a server that is away. What is full here is no outage.
                if isinstance(error, OSError) and error.errno in _OURS:
                    raise
                if time.monotonic() + RETRY_SECONDS > end:
                    raise Outage(self._unusable(error)) from error
                if not waited:
                    print(f"warning: {self._unusable(error)}; waiting for it", file=sys.stderr, flush=True)
                waited = True
            time.sleep(RETRY_SECONDS)

    def _path(self, key: str) -> str:
        return f"{self._opened[1]}/{key}"

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """Return the file system and the path of the URL in it; raise `UserError` when there is no such thing."""
        from fsspec.core import url_to_fs

        # It prints the traceback of every error, also of those that become one line here.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        protocol = self.url.partition("://")[0]
        try:
            # Others write into the bucket too: a listing that is remembered would be an old one.
            fs, base = url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            extra = _EXTRAS.get(protocol)
            advice = f": pip install 'cong[{extra}]'" if extra else ""
            raise UserError(f"the store {self.url} needs a package that is missing ({error}){advice}") from error
        except Exception as error:
            raise UserError(self._unusable(error)) from error
        return fs, base.rstrip("/")

    def _unusable(self, error: Exception) -> str:
        return f"the store {self.url} cannot be used: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


class BucketLease(lease.Lease):
    """The lease of a stage, as a row of objects `1`, `2`, ...: who creates the next one holds it.

    A storage creates an object at most once, so of all who find a lease free or dead one gets the next number, and the
    others find it taken. An object is never removed, so no number comes up again; only its holder writes to it, at
    every heartbeat and when it is given back. It is lost as soon as the next number is there.
    """

    poll_seconds = 2.0

    def __init__(self, bucket: Bucket, prefix: str, *, directory: str) -> None:
        super().__init__(f"{bucket.url}/{prefix}")
        self._bucket, self._prefix, self._directory = bucket, prefix, directory
        self._number = 0
        """Of the latest lease that was seen, and once it is held of ours."""

    def current(self) -> dict[str, Any] | None:
        keys = self._bucket.keys(self._prefix)
        self._number = int(keys[-1].rpartition("/")[2]) if keys else 0
        data = self._bucket.read(self._key(self._number))
        found = None if data is None else lease.described(data, version=self._number)
        return None if found is None or found.get("released") else found

    def try_take(self, seen: dict[str, Any] | None, *, dead: bool) -> bool:
        if seen is not None and not dead and not lease.is_gone(seen):
            return False
        created = self._bucket.create(self._key(self._number + 1), self._state())
        self._number += created
        return created

    def _is_ours(self) -> bool:
        return self._bucket.read(self._key(self._number + 1)) is None

    def _renew(self) -> bool:
        if ours := self._is_ours():
            self._bucket.write(self._key(self._number), self._state())
        return ours

    def _give_back(self) -> None:
        try:
            self._bucket.write(self._key(self._number), self._state(released=True))
        except OSError as error:
            # It dies of itself. What was published is published.
            print(f"lease: {error}", file=sys.stderr, flush=True)

    def _state(self, **more: bool) -> bytes:
        return self._next_beat(directory=self._directory, **more).encode()

    def _key(self, number: int) -> str:
        return f"{self._prefix}/{number:08d}"
