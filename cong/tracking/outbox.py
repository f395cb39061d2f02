"""What is to be sent to the tracking server, in its order: while the server is away it waits, and nothing is lost.

    outbox = Outbox(uri, probe=lambda: client.search_experiments(max_results=1))
    outbox.send(lambda: client.set_tag(run, "key", "value"))     # at once, or when the server is back
    outbox.attach(lambda: client.log_artifact(run, path))        # by another thread, behind what was sent

No error of the server or of its client leaves this module: a run continues whatever its tracker does. Files go to an
artifact store that may be another machine than the server, and slow or closed to this one: nothing waits for them.
"""

import functools
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from cong.tracking.names import text_of
from cong.tracking.server import describe, is_outage

RETRY_SECONDS = 15.0
TRIES = 3
"""How often a call is made that a server which answers does not take."""
MOST_WARNINGS = 5
_FILES_SECONDS = 5.0
"""The least time that files have at the end, also of a run that failed."""
_QUICK_SECONDS = 2.0
"""An error that takes longer is none that the server answered with."""


class Outbox:
    """Calls to the server at `uri`, made one after the other by the thread that sends and delivers."""

    def __init__(self, uri: str, *, probe: Callable[[], Any]) -> None:
        self._uri, self._probe = uri, probe
        self._calls: deque[Callable[[], None]] = deque()
        self._away = False
        self._next_try = 0.0
        self._tries = 0
        self._left_out = 0
        self._files = _Attachments(uri, probe=probe)

    @property
    def empty(self) -> bool:
        """Whether all calls were made."""
        return not self._calls

    def send(self, call: Callable[[], Any]) -> None:
        """Make a call after those that wait."""
        self._calls.append(call)
        self.deliver()

    def attach(self, call: Callable[[], Any]) -> None:
        """Make a call that stores a file, once the calls that wait now are made."""
        self.send(lambda: self._files.put(call))

    def deliver(self) -> None:
        """Make the calls that wait, unless the server was away a moment ago."""
        if time.monotonic() < self._next_try:
            return
        while self._calls:
            if not self._made(self._calls[0]):
                return
            self._calls.popleft()
        if self._away:
            self._away = False
            print("MLflow answers again: what waited was sent", file=sys.stderr, flush=True)

    def wait(self, seconds: float) -> None:
        """Go on trying for so long; say what is missing there when the server stays away."""
        end = time.monotonic() + seconds
        self._next_try = min(self._next_try, time.monotonic() + RETRY_SECONDS)
        while self._calls and time.monotonic() < end:
            time.sleep(min(RETRY_SECONDS, 1.0))
            self.deliver()
        if self._calls:
            print("warning: MLflow stayed away, so a part of this run is missing there; all results are in the store",
                  file=sys.stderr, flush=True)  # fmt: skip
        self._files.wait(max(end - time.monotonic(), _FILES_SECONDS))

    def _made(self, call: Callable[[], None]) -> bool:
        began = time.monotonic()
        try:
            call()
        except Exception as error:
            # Its client raises whatever the libraries below it do: of databases, of HTTP, of clouds.
            took = time.monotonic() - began
            if is_outage(error) and not self._is_refused(took):
                self._postpone(error, took)
                return False
            self._leave_out(error)
        self._tries = 0
        return True

    def _is_refused(self, took: float) -> bool:
        """Tell whether the server answers and fails at this call all the same: it would fail for ever."""
        self._tries += 1
        return self._tries >= TRIES and took < _QUICK_SECONDS and _answers(self._probe)

    def _leave_out(self, error: Exception) -> None:
        # What is behind it would wait for ever.
        self._left_out += 1
        if self._left_out <= MOST_WARNINGS:
            more = "; further such warnings are not shown" if self._left_out == MOST_WARNINGS else ""
            print(f"warning: {describe(self._uri, error)}; this entry is left out{more}", file=sys.stderr, flush=True)

    def _postpone(self, error: Exception, took: float) -> None:
        # The run's own thread waits meanwhile: a server that only times out may cost it no more than a tenth.
        self._next_try = time.monotonic() + max(RETRY_SECONDS, 10 * took)
        if not self._away:
            self._away = True
            print(f"warning: {describe(self._uri, error)}; the run continues, and what is to be tracked waits",
                  file=sys.stderr, flush=True)  # fmt: skip


class _Attachments:
    """Files on their way to the artifact store. After a few that it does not take no more are tried."""

    def __init__(self, uri: str, *, probe: Callable[[], Any]) -> None:
        self._uri, self._probe = uri, probe
        self._queue: queue.Queue[Callable[[], Any]] = queue.Queue()
        self._closed, self._said = False, False
        self._failed = 0
        """Files in a row that were not taken."""
        self._thread: threading.Thread | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray Tune keeps a copy of all that listens to its trials; that one sends nothing.
        return functools.partial(_Attachments, self._uri, probe=self._probe), ()

    def put(self, call: Callable[[], Any]) -> None:
        if self._closed:
            return
        self._queue.put(call)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="artifacts")
            self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait for the files that are on their way, at most so long; say when some are missing there."""
        end = time.monotonic() + seconds
        while self._queue.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.02)
        if self._queue.unfinished_tasks and not self._closed:
            self._closed = True
            self._say("its artifact store takes no files in time")

    def _work(self) -> None:
        while True:
            call = self._queue.get()
            while not self._closed and not self._stored(call):
                time.sleep(RETRY_SECONDS)
            self._queue.task_done()

    def _stored(self, call: Callable[[], Any]) -> bool:
        began = time.monotonic()
        try:
            call()
            self._failed = 0
        except Exception as error:
            if not _answers(self._probe):
                return False  # The server is away, which the calls to it tell.
            self._failed += 1
            self._closed = self._failed >= TRIES or time.monotonic() - began > _QUICK_SECONDS
            reason = f"{type(error).__name__}: {' '.join(text_of(error).split())[:200]}"
            self._say(f"its artifact store takes no files from here, or not this one ({reason})")
        return True

    def _say(self, reason: str) -> None:
        if not self._said:
            self._said = True
            print(f"warning: {describe(self._uri)}: {reason}; they are in the store", file=sys.stderr, flush=True)


def _answers(probe: Callable[[], Any]) -> bool:
    try:
        probe()
    except Exception:
        return False
    return True
