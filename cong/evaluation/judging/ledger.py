"""The ledger of what judging cost: a file that all processes of a store append to, and the budget that it keeps.

Before a request is sent, an upper bound of its cost is reserved; when the answer is there, its cost takes the bound's
place. Where the request was lost (a time-out, a cut connection, a killed process) the bound stays: it may be charged.
So spent + reserved never passes the budget, whoever dies.

    ticket = ledger.reserve(0.03)        # waits for requests under way, then raises BudgetReached
    ledger.settle(ticket, 0.012)
"""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from cong.errors import UserError
from cong.graph.store.lease import is_gone, this_process

_TICK = 0.05


class BudgetReached(UserError):
    """Another request could pass the budget."""


class Ledger:
    """One process's view of the file. `patience` is how long a reservation waits for others to be settled."""

    def __init__(self, path: Path, *, budget: float | None, patience: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._budget, self._patience = path, budget, patience
        self._lock, self._threads = FileLock(str(path.with_suffix(".lock"))), threading.Lock()
        self._offset, self._settled = 0, 0.0
        self._open: dict[str, dict[str, Any]] = {}
        self._me = this_process()
        self.booked = 0.0
        """US dollars that this object settled: what one run added to the file."""

    def reserve(self, usd: float) -> str:
        """Set `usd` aside and return a ticket; raise `BudgetReached` when that would pass the budget."""
        deadline = time.monotonic() + self._patience
        while True:
            with self._reading():
                committed = self._settled + sum(entry["usd"] for entry in self._open.values())
                if self._budget is None or committed + usd <= self._budget:
                    return self._take(usd)
                under_way = any(not is_gone(entry["by"]) for entry in self._open.values())
            if not under_way or time.monotonic() > deadline:
                raise BudgetReached(
                    f"the budget of {self._budget:g} USD is reached: {committed:.4f} USD are spent or may be, "
                    f"the next request may cost {usd:.4f}"
                )
            time.sleep(_TICK)

    def settle(self, ticket: str, usd: float | None) -> None:
        """Replace what was reserved by what it cost; None for a lost request, which counts with its bound."""
        with self._reading():
            if ticket in self._open:
                cost = self._open[ticket]["usd"] if usd is None else usd
                self._append({"settle": ticket, "usd": cost})
                self.booked += cost

    def spent(self) -> float:
        """Return the US dollars that are spent, or may be because their request was lost."""
        with self._reading():
            return self._settled + sum(entry["usd"] for entry in self._open.values() if is_gone(entry["by"]))

    def _take(self, usd: float) -> str:
        ticket = uuid.uuid4().hex
        self._append({"reserve": ticket, "usd": usd, "by": self._me})
        return ticket

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._threads, self._lock:
            self._catch_up()
            yield

    def _catch_up(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines = file.read()
        self._offset += len(lines)
        for line in lines.splitlines():
            # A killed process leaves half a line. Half a reservation was not sent; half a settlement leaves the bound.
            with contextlib.suppress(ValueError):
                self._enter(json.loads(line))

    def _enter(self, entry: dict[str, Any]) -> None:
        if "reserve" in entry:
            self._open[entry["reserve"]] = entry
        else:
            self._open.pop(entry["settle"], None)
            self._settled += entry["usd"]

    def _append(self, entry: dict[str, Any]) -> None:
        with self._path.open("ab") as file:
            # The line begins on a new one even where a killed process left half a line.
            data = b"\n" + json.dumps(entry).encode() + b"\n"
            file.write(data)
        self._offset += len(data)
        self._enter(entry)
