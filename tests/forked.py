"""Processes that are forked from one that has imported the large libraries: starting them takes no time.

Importing torch, transformers and TRL takes seconds of a core, for every process that trains or decodes. The fork server
is the standard library's; it does not import Ray, which reads its settings from the environment when it is imported.
"""

import atexit
import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["preloaded"])


class Forked:
    """A function in a forked process, which is used as a `subprocess.Popen`; its output is in a file."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, env: dict[str, str], cwd: Path) -> None:
        with tempfile.NamedTemporaryFile(prefix="output-", delete=False) as output:
            self._output = Path(output.name)
        given = (function, arguments, env, str(cwd), str(self._output))
        _start_server()
        self._process: BaseProcess = _CONTEXT.Process(target=_become, args=given)
        self._process.start()
        atexit.register(self._end)
        pid = self._process.pid
        assert pid is not None
        self.pid = pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0, output=self.output())
        return code

    def output(self) -> str:
        """Return what it has written so far to its standard output and error."""
        return self._output.read_text()

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        self.wait(timeout)
        return self.output(), None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def _end(self) -> None:
        # An interpreter that ends waits for its processes: also for one that a failed test has left behind.
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)
        self._output.unlink(missing_ok=True)


def _start_server() -> None:
    """Start the process to fork from, unless it runs; it finds what it is to import by this variable alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()


def _become(function: Callable[..., Any], arguments: tuple, env: dict[str, str], cwd: str, output: str) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)
    # The fork server lives as long as anybody holds its pipe, and what is started here may outlive it.
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            os.set_inheritable(descriptor, descriptor < 3)
    # What the libraries made when they were imported is no garbage, and would be looked through time and again.
    gc.freeze()
    try:
        function(*arguments)
    finally:
        # A forked process of `multiprocessing` ends without what was registered for the end of an interpreter.
        atexit._run_exitfuncs()


def run_command_line(*arguments: str) -> None:
    """Do what `python -m cong.cli` does."""
    from cong.cli.app import main

    sys.argv = ["cong", *arguments]
    main()
