"""A lease lets one process at a time work on a stage, among all processes on all nodes that share the store.

The holder's heartbeat replaces the lease file every few seconds. A lease is dead when its holder's process is gone
(seen at once on the same host) or when its heartbeat stood still for `EXPIRY` seconds of the observer's own clock, so
clocks of different hosts need not agree. The short critical sections are guarded by a file lock, which the kernel frees
with its process.
"""

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from cong.graph.journal import replace_text

HEARTBEAT = 5.0
EXPIRY = 60.0
LEASE = ".lease.json"
UNREADABLE = "unreadable"


class LeaseLost(RuntimeError):
    """Another process took this lease over: what this one made must not be published."""


class Lease:
    """A held lease, wherever it is kept. `check()` raises `LeaseLost` when it is no longer ours."""

    poll_seconds = 0.5

    def __init__(self, name: str) -> None:
        self._name = name
        self._token = uuid.uuid4().hex
        self._beat = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease heartbeat")

    def check(self) -> None:
        """Raise `LeaseLost` unless this lease is still ours."""
        if not self._is_ours():
            raise LeaseLost(f"the lease {self._name} was taken over")

    def current(self) -> dict[str, Any] | None:
        """Return who holds the lease, dead or alive, or None when nobody does."""
        raise NotImplementedError

    def try_take(self, seen: dict[str, Any] | None, *, dead: bool) -> bool:
        """Take the lease unless it is held; `seen` is who held it at the last look, `dead` whether it stood still."""
        raise NotImplementedError

    def _is_ours(self) -> bool:
        raise NotImplementedError

    def _renew(self) -> bool:
        """Write the next heartbeat; return False when the lease is no longer ours."""
        raise NotImplementedError

    def _give_back(self) -> None:
        raise NotImplementedError

    def _next_beat(self, **more: Any) -> str:
        self._beat += 1
        return json.dumps({"token": self._token, "beat": self._beat, **this_process(), **more})

    def _keep(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            try:
                if not self._renew():
                    return
            except Exception as error:
                # A full disk, a mount that is away for a minute or half a file that was read must not cost the lease:
                # the next beat tries again. A heartbeat that ended would let another process take a living one's work.
                _tell(f"lease heartbeat: {type(error).__name__}: {error}")

    def keep(self) -> None:
        """Begin the heartbeat of a lease that was taken."""
        self._thread.start()

    def release(self) -> None:
        """End the heartbeat, and give the lease back."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._give_back()
        except Exception as error:
            # It dies with this process, or of its silence. What was published is published.
            _tell(f"lease: {type(error).__name__}: {error}")


class DirectoryLease(Lease):
    """The lease of a directory: a file in it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(str(directory / LEASE))
        self._path = directory / LEASE
        self._guard = FileLock(str(directory / ".lease.lock"))

    def current(self) -> dict[str, Any] | None:
        return _read(self._path)

    def try_take(self, seen: dict[str, Any] | None, *, dead: bool) -> bool:
        with self._guard:
            current = self.current()
            dead_token = seen["token"] if seen and dead else None
            if current is not None and current["token"] != dead_token and not is_gone(current):
                return False
            replace_text(self._path, self._next_beat())
            return True

    def _is_ours(self) -> bool:
        # A file that cannot be read names nobody else, and is written again.
        return (self.current() or {}).get("token") in (self._token, UNREADABLE)

    def _renew(self) -> bool:
        with self._guard:
            if ours := self._is_ours():
                replace_text(self._path, self._next_beat())
            return ours

    def _give_back(self) -> None:
        with self._guard:
            if self._is_ours():
                self._path.unlink()


@contextmanager
def hold(directory: Path, *, while_waiting: Callable[[], bool] = lambda: False) -> Generator[Lease | None]:
    """Hold the lease of a directory, waiting for it as long as needed: see `holding`."""
    directory.mkdir(parents=True, exist_ok=True)
    with holding(DirectoryLease(directory), while_waiting=while_waiting) as held:
        yield held


@contextmanager
def holding(lease: Lease, *, while_waiting: Callable[[], bool]) -> Generator[Lease | None]:
    """Hold a lease, waiting for it as long as needed.

    `while_waiting` is asked about at every look at the lease; when it answers True (the other process has finished the
    stage), the wait ends with None.
    """
    if not _wait(lease, while_waiting):
        yield None
        return
    lease.keep()
    try:
        yield lease
    finally:
        lease.release()


def holder(directory: Path) -> dict[str, Any] | None:
    """Return who holds the lease of a directory, or None when nobody does; a dead holder on this host is nobody."""
    current = _read(directory / LEASE)
    return None if current is None or is_gone(current) else current


def silence(directory: Path) -> float | None:
    """Return the seconds since the last heartbeat, by the clocks of the storage and of this host; None without one."""
    try:
        return max(time.time() - (directory / LEASE).stat().st_mtime, 0.0)
    except FileNotFoundError:
        return None


def is_here(current: dict[str, Any]) -> bool:
    """Tell whether a process, as `this_process` describes it, is or was one of this host."""
    return current["host"] == _host()


def _wait(lease: Lease, while_waiting: Callable[[], bool]) -> bool:
    seen: tuple[str, int] | None = None
    since = time.monotonic()
    while True:
        asked = time.monotonic()
        current = lease.current()
        heartbeat = (current["token"], current["beat"]) if current else None
        # Who cannot look for a while has seen nobody stand still: the storage may have been away for the holder, too.
        if heartbeat != seen or time.monotonic() - asked > HEARTBEAT:
            seen, since = heartbeat, time.monotonic()
        if lease.try_take(current, dead=seen is not None and time.monotonic() - since > EXPIRY):
            return True
        if while_waiting():
            return False
        time.sleep(lease.poll_seconds)


def _read(path: Path) -> dict[str, Any] | None:
    """Return who a lease file names, or None when there is no file."""
    try:
        return described(path.read_bytes(), version=path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


def described(data: bytes, *, version: Any) -> dict[str, Any]:
    """Return who holds a lease, as its file says.

    A part of a file, as a crash of the machine leaves it, is of an unknown holder: who stands still is dead after a
    while like any other, and the real one writes the file again. `version` changes with the file.
    """
    unknown = {"token": UNREADABLE, "beat": version, "host": "unknown", "pid": 0, "born": 0.0}
    try:
        found = json.loads(data)
    except ValueError:
        return unknown
    return {**unknown, **found} if isinstance(found, dict) else unknown


def _tell(line: str) -> None:
    # Standard error may be closed by now; a heartbeat continues without it.
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def this_process() -> dict[str, Any]:
    """Return what tells this process from every other: host, id and time of birth."""
    return {"host": _host(), "pid": os.getpid(), "born": _born(os.getpid())}


def is_gone(current: dict[str, Any]) -> bool:
    """Tell whether a process, as `this_process` describes it, has ended; of another host nothing is known."""
    if not is_here(current):
        return False
    try:
        # A process id is used again after a while; the time of birth tells the two apart.
        other = _born(current["pid"]) != current["born"]
        return other or psutil.Process(current["pid"]).status() == psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return True


def _host() -> str:
    """Return what names this kernel and this space of process ids: two containers can share a host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _born(pid: int) -> float:
    """Return when a process began: in clock ticks since the boot, which no change of the clock moves."""
    path = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():
        return psutil.Process(pid).create_time()
    return float(path.read_text().rpartition(")")[2].split()[19])
