"""What is to be sent to the tracking server, in its order: while the server is away it waits, and nothing is lost.

outbox = Outbox(uri)
outbox.send(lambda: client.set_tag(run, "key", "value"))     # at once, or when the server is back
"""

import sys
import time
from collections import deque
from collections.abc import Callable

from cong.tracking.server import describe, is_outage

RETRY_SECONDS = 15.0


class Outbox:
    """Calls to the server at `uri`, made one after the other by the thread that sends and delivers."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._calls: deque[Callable[[], None]] = deque()
        self._away = False
        self._next_try = 0.0

    @property
    def empty(self) -> bool:
        """Whether all calls were made."""
        return not self._calls

    def send(self, call: Callable[[], None]) -> None:
        """Make a call after those that wait."""
        self._calls.append(call)
        self.deliver()

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
        while self._calls and time.monotonic() < end:
            time.sleep(min(RETRY_SECONDS, 1.0))
            self.deliver()
        if self._calls:
            print("warning: MLflow stayed away, so a part of this run is missing there; all results are in the store",
                  file=sys.stderr, flush=True)  # fmt: skip

    def _made(self, call: Callable[[], None]) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            call()
        except (MlflowException, OSError) as error:
            if is_outage(error):
                self._postpone(error)
                return False
            # It would fail for ever, and everything behind it would wait for ever.
            print(f"warning: {describe(self._uri, error)}; this entry is left out", file=sys.stderr, flush=True)
        return True

    def _postpone(self, error: Exception) -> None:
        self._next_try = time.monotonic() + RETRY_SECONDS
        if not self._away:
            self._away = True
            print(f"warning: {describe(self._uri, error)}; the run goes on, and what is to be tracked waits",
                  file=sys.stderr, flush=True)  # fmt: skip
