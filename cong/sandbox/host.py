"""The outside of the sandbox: starts it, reads the clock, drains the output, ends it."""

import contextlib
import functools
import json
import os
import platform
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cong.errors import UserError
from cong.sandbox.types import Limits, Verdict

_PACKAGE = str(Path(__file__).parent)
_START = "import sys, json; job = json.loads(sys.argv[1]); sys.path.append(job['package'])\n"
_START += "from inside import jail; jail.main(job)"
_SETUP_SECONDS = 120.0
_SETUPS = 3
_SETUP_PAUSE_SECONDS = 0.2
_END_SECONDS = 60.0
_CHUNK = 1 << 16
_REPORT_BYTES = 1 << 16
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")


def run_tests(program: str, tests: str, *, limits: Limits) -> Verdict:
    """Run a program and then its tests in a sandbox of their own; raise `UserError` when none can be made."""
    if not tests.strip():
        raise ValueError("there are no tests: nothing to pass")
    for _ in range(_SETUPS - 1):
        try:
            return _run_once(program, tests, limits=limits)
        except UserError:
            # Kernels refuse namespaces and filters for a moment when many are made at once.
            time.sleep(_SETUP_PAUSE_SECONDS)
    return _run_once(program, tests, limits=limits)


def _run_once(program: str, tests: str, *, limits: Limits) -> Verdict:
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as report, _start(program, tests, report=writer, limits=limits) as process:
        assert process.stdout is not None
        watch = _Watch(process=process, report=report.fileno(), output=process.stdout.fileno(), limits=limits)
        return watch.verdict()


def _start(program: str, tests: str, *, report: int, limits: Limits) -> subprocess.Popen:
    """Start a fresh interpreter that knows nothing but the job; closes `report` here."""
    texts = {name: _in_memory(name, text) for name, text in (("program", program), ("tests", tests))}
    job = {**texts, "report": report, "package": _PACKAGE, "parent": os.getpid(), "limits": asdict(limits)}
    kept = (*texts.values(), report)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START, json.dumps(job | _visible())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=kept,
            env={},
            cwd="/",
            start_new_session=True,
        )
    finally:
        for descriptor in kept:
            os.close(descriptor)


def run_many(jobs: Iterable[tuple[str, str]], *, limits: Limits, workers: int) -> list[Verdict]:
    """Run pairs of program and tests, `workers` at a time; equal pairs are run once."""
    jobs = list(jobs)
    different = list(dict.fromkeys(jobs))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        found = pool.map(lambda job: run_tests(*job, limits=limits), different)
        verdicts = dict(zip(different, found, strict=True))
    return [verdicts[job] for job in jobs]


@functools.cache
def check_sandbox() -> None:
    """Raise `UserError` when this machine has no sandbox: nothing is ever run without."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UserError(f"the sandbox for code needs Linux on x86-64, not {sys.platform} on {platform.machine()}")
    verdict = run_tests("def one():\n    return 1\n", "assert one() == 1", limits=Limits(wall_seconds=_SETUP_SECONDS))
    if not verdict.passed:
        raise UserError(f"the sandbox for code does not work here: {verdict.reason}, {verdict.detail}")


@dataclass(kw_only=True)
class _Watch:
    """Follows one sandbox until everything in it has ended."""

    process: subprocess.Popen
    report: int
    output: int
    limits: Limits
    reported: bytearray = field(default_factory=bytearray)
    printed: int = 0
    tail: bytes = b""
    killed: Verdict | None = None
    deadline: float = field(default_factory=lambda: time.monotonic() + _SETUP_SECONDS)
    started: bool = False

    def verdict(self) -> Verdict:
        try:
            self._follow()
        finally:
            self._kill()
        messages = [json.loads(line) for line in self.reported.splitlines()]
        failed = next((message["failed"] for message in messages if "failed" in message), None)
        if failed is not None or not messages:
            reason = failed or self.tail.decode(errors="replace").strip().rpartition("\n")[2] or "it did not start"
            raise UserError(f"no sandbox for code on this machine: {reason}; nothing was run")
        if self.killed is not None:
            return self.killed
        return Verdict(**messages[-1]) if "reason" in messages[-1] else Verdict(reason="killed", detail="no report")

    def _follow(self) -> None:
        """Read both pipes until every process that holds them has ended."""
        with selectors.DefaultSelector() as selector:
            for descriptor in (self.report, self.output):
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select(timeout=max(0.0, self.deadline - time.monotonic())):
                    data = os.read(key.fd, _CHUNK)
                    if not data:
                        selector.unregister(key.fd)
                    self._take(key.fd, data)
                if time.monotonic() >= self.deadline:
                    self._overdue()

    def _take(self, descriptor: int, data: bytes) -> None:
        if descriptor == self.report:
            self.reported += data
            if not self.started and b"\n" in self.reported:
                self.started, self.deadline = True, time.monotonic() + self.limits.wall_seconds
            return
        self.printed += len(data)
        self.tail = (self.tail + data)[-_REPORT_BYTES:]
        if self.printed > self.limits.output_bytes and self.killed is None:
            self._end(Verdict(reason="output", detail=f"more than {self.limits.output_bytes} bytes were printed"))

    def _overdue(self) -> None:
        if self.killed is not None or not self.started:
            raise RuntimeError(f"the sandbox {self.process.pid} could not be {'ended' if self.killed else 'started'}")
        self._end(Verdict(reason="timeout", detail=f"not done after {self.limits.wall_seconds:g} s"))

    def _end(self, verdict: Verdict) -> None:
        self.killed, self.deadline = verdict, time.monotonic() + _END_SECONDS
        self._kill()

    def _kill(self) -> None:
        # Launcher and first process share a group of their own; with the first process, the kernel ends all others.
        if self.process.returncode is None:
            # Gone already where this process ignores SIGCHLD, for then nobody waits for its children.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def _in_memory(name: str, text: str) -> int:
    """Return a descriptor of an unnamed file that holds the text."""
    descriptor = os.memfd_create(name)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(text.encode(errors="replace"))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@functools.cache
def _visible() -> dict:
    """Return what of the file system the sandbox shows: the libraries of this Python."""
    standard = str(Path(os.__file__).resolve().parent)
    links = {path: os.readlink(path) for path in _LIBRARIES if os.path.islink(path)}
    trees: list[str] = []
    for path in sorted({*_LIBRARIES, str(Path(standard).parent)} - set(links)):
        inside = any(path.startswith(f"{tree}/") for tree in trees)
        if os.path.isdir(path) and not inside:
            trees.append(path)
    return {"trees": trees, "links": {link: target for link, target in links.items() if link.count("/") == 1}}
