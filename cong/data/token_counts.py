"""Tokens as they are decoded: every worker's count lies in a file beside its parts, and the stage adds them up.

A worker that decodes tells how many tokens it has decoded (`decoded_tokens`), those of unfinished rows among them. So
a stage whose first rows take minutes shows from the beginning how fast it is. Counts of an earlier run say nothing of
this one: what it finished is in the parts, the rest is decoded again.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from cong.graph.journal import replace_text

SECONDS = 1.0
"""Between two looks at a count."""
_PREFIX = "tokens-"


@runtime_checkable
class CountsTokens(Protocol):
    """A worker that decodes."""

    @property
    def decoded_tokens(self) -> int:
        """New tokens since the worker was made: a number that only grows, read by another thread while it works."""
        ...


@contextmanager
def repeatedly(call: Callable[[], None]) -> Iterator[None]:
    """Call about once a second, from a thread of its own, while the block runs, and once more when it has ended."""
    stop = threading.Event()

    def repeat() -> None:
        last = False
        while not last:
            last = stop.wait(SECONDS)
            call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def counting(worker: object, parts: Path, *, name: str) -> Iterator[None]:
    """Keep the count of a worker, whose `name` no other has, in its file while the block runs, if it has a count."""
    if not isinstance(worker, CountsTokens):
        yield
        return
    path = parts / f"{_PREFIX}{name}"

    def write() -> None:
        replace_text(path, str(worker.decoded_tokens))

    write()
    with repeatedly(write):
        yield


def counts_in(parts: Path) -> dict[str, int]:
    """Return the counts in a directory of parts by the names of their files."""
    found: dict[str, int] = {}
    for path in parts.glob(f"{_PREFIX}*"):
        # A network file system may refuse to read what another node replaces at this moment.
        with suppress(OSError):
            found[path.name] = int(path.read_text())
    return found
