"""The outside of the sandbox: starts the jail, watches clock and output, and reads the verdict."""

import contextlib
import json
import os
import resource
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cong.errors import UserError

JAIL = Path(__file__).with_name("jail.py")
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
NOBODY = 65534
START_SECONDS = 20.0
"""The wall clock begins when the program does; a busy machine may take long to get there."""

Reason = Literal["passed", "assertion", "exception", "exited", "timeout", "memory", "output", "killed"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use. `seconds` bounds both the wall clock and the processor's time."""

    seconds: float = 5.0
    memory_bytes: int = 512 << 20
    disk_bytes: int = 16 << 20
    output_bytes: int = 64 << 10
    open_files: int = 64

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_bytes", "disk_bytes", "output_bytes", "open_files"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)} is not above 0")

    def for_kernel(self) -> list[tuple[int, int]]:
        """Return the limits of the process."""
        return [
            (resource.RLIMIT_AS, self.memory_bytes),
            (resource.RLIMIT_CPU, int(self.seconds) + 1),
            (resource.RLIMIT_FSIZE, self.disk_bytes),
            (resource.RLIMIT_NOFILE, self.open_files),
            (resource.RLIMIT_CORE, 0),
        ]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a program did. `detail` is what it raised, or which signal ended it; `output` the start of what it wrote."""

    reason: Reason
    detail: str = ""
    output: str = ""

    @property
    def passed(self) -> bool:
        """Whether every test ran to its end."""
        return self.reason == "passed"


class SandboxError(RuntimeError):
    """The sandbox could not be set up: nothing was run."""


def run_tests(program: str, tests: str, *, limits: Limits) -> Verdict:
    """Run a program and its tests; raise `SandboxError` when that cannot be done safely."""
    with tempfile.TemporaryDirectory(prefix="cong-jail-") as root:
        return _Jail(program, tests, limits=limits, root=root).verdict()


def run_many(jobs: Sequence[tuple[str, str]], *, limits: Limits, workers: int) -> list[Verdict]:
    """Run (program, tests) of each job, some side by side; verdicts in the order of the jobs."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(lambda job: run_tests(*job, limits=limits), jobs))


def check_sandbox() -> None:
    """Raise `UserError` where programs cannot be contained."""
    if sys.platform != "linux":
        raise UserError(f"model-written programs are run on Linux only, not on {sys.platform}")
    try:
        verdict = run_tests("", "", limits=Limits())
    except SandboxError as error:
        raise UserError(f"model-written programs cannot be contained on this machine: {error}") from error
    if not verdict.passed:
        raise UserError(f"the sandbox does not work on this machine: {verdict.reason} {verdict.detail}")


@dataclass
class _Seen:
    output: bytearray = field(default_factory=bytearray)
    verdict: bytearray = field(default_factory=bytearray)
    status: bytearray = field(default_factory=bytearray)
    stopped: Reason | None = None


class _Jail:
    """One run: a process, and the pipes between it and us."""

    def __init__(self, program: str, tests: str, *, limits: Limits, root: str) -> None:
        self._limits = limits
        self._secret = secrets.token_hex(16)
        self._job = {
            "program": program,
            "tests": tests,
            "secret": self._secret,
            "root": root,
            "shown": _shown(),
            "disk_bytes": limits.disk_bytes,
            "limits": limits.for_kernel(),
            "unprivileged": os.geteuid() == 0,
        }

    def verdict(self) -> Verdict:
        """Start the jail, wait for it to end or to be stopped, and say what happened."""
        ours, theirs = socket.socketpair()
        pipes = {name: os.pipe() for name in ("job", "verdict", "status", "output")}
        inside = [pipes["job"][0], theirs.fileno(), pipes["verdict"][1], pipes["status"][1]]
        command = [sys.executable, "-I", "-S", str(JAIL), *map(str, inside)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipes["output"][1], stderr=pipes["output"][1], pass_fds=inside,
            env={}, cwd="/", start_new_session=True,
        )  # fmt: skip
        theirs.close()
        for descriptor in (pipes["job"][0], *(pipes[name][1] for name in ("verdict", "status", "output"))):
            os.close(descriptor)
        try:
            with ours:
                ours.settimeout(START_SECONDS)
                self._hand_over(process.pid, ours, job=pipes["job"][1])
            seen = self._watch({name: pipes[name][0] for name in ("verdict", "status", "output")})
        finally:
            _end(process)
            for name in ("verdict", "status", "output"):
                os.close(pipes[name][0])
        return self._judge(seen)

    def _hand_over(self, pid: int, sync: socket.socket, *, job: int) -> None:
        """Give the job, and the users of the new namespace once it is there."""
        with os.fdopen(job, "wb") as file:
            try:
                file.write(json.dumps(self._job).encode())
            except BrokenPipeError:
                return
        try:
            if sync.recv(1) == b"u":
                _map_users(pid)
                sync.send(b"m")
        except OSError:
            return  # what it wrote on its standard error says why

    def _watch(self, pipes: dict[str, int]) -> _Seen:
        seen = _Seen()
        deadline = time.monotonic() + START_SECONDS
        started = False
        with selectors.DefaultSelector() as selector:
            for name, descriptor in pipes.items():
                selector.register(descriptor, selectors.EVENT_READ, name)
            while selector.get_map() and seen.stopped is None:
                for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                    data = os.read(key.fd, 1 << 16)
                    getattr(seen, key.data).extend(data)
                    if not data:
                        selector.unregister(key.fd)
                if len(seen.output) > self._limits.output_bytes:
                    seen.stopped = "output"
                elif not started and seen.verdict:
                    started, deadline = True, time.monotonic() + self._limits.seconds
                elif time.monotonic() >= deadline:
                    seen.stopped = "timeout"
                elif seen.status:
                    break  # process 1 has spoken, and the rest is dead with it
        return seen

    def _judge(self, seen: _Seen) -> Verdict:
        lines = seen.verdict.split(b"\n")
        output = bytes(seen.output[: self._limits.output_bytes]).decode(errors="replace")
        if lines[0] != b'{"ready": true}':
            raise SandboxError(" ".join(output.split())[-300:] or "it did not start in time")
        if seen.stopped:
            return Verdict(reason=seen.stopped, output=output)
        told = _parsed(bytes(lines[1])) if len(lines) > 1 else {}
        if told.get("outcome") == "passed" and told.get("secret") == self._secret:
            return Verdict(reason="passed", output=output)
        reason, detail = told.get("outcome"), str(told.get("detail", ""))
        if reason in ("assertion", "exception", "memory"):
            return Verdict(reason=reason, detail=detail, output=output)
        number = int(_parsed(bytes(seen.status)).get("signal", 0))
        if number == signal.SIGXCPU:
            return Verdict(reason="timeout", output=output)
        if number:
            return Verdict(reason="killed", detail=signal.Signals(number).name, output=output)
        return Verdict(reason="exited", detail=detail, output=output)


def _shown() -> list[str]:
    """Directories that the interpreter needs: its own, and those of shared libraries."""
    wanted = [sys.base_prefix, *(path for path in LIBRARIES if Path(path).is_dir())]
    paths = list(dict.fromkeys(os.path.realpath(path) for path in wanted))
    aliases = [path for path in wanted if Path(path).is_symlink()]
    inner = [path for path in paths if any(path != other and path.startswith(f"{other}/") for other in paths)]
    return [path for path in paths if path not in inner] + aliases


def _map_users(pid: int) -> None:
    """Give the namespace its users: we as its root, and nobody as user 1 where we may."""
    uid, gid = os.geteuid(), os.getegid()
    more = f"\n1 {NOBODY} 1" if uid == 0 else ""
    if uid != 0:
        Path(f"/proc/{pid}/setgroups").write_text("deny")
    Path(f"/proc/{pid}/uid_map").write_text(f"0 {uid} 1{more}")
    Path(f"/proc/{pid}/gid_map").write_text(f"0 {gid} 1{more}")


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _parsed(line: bytes) -> dict:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
