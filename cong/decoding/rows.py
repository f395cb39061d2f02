"""The slot engine's view of its load from the host: who sits in a slot, who waits, how many slot-steps were useful.

A slot-step is one row of one decoding step; refilling is good when most of them are useful.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cong.decoding.types import Request


@dataclass
class SlotStats:
    """Counts since the engine was built; a slot-step is one row of one decoding step."""

    steps: int = 0
    slot_steps: int = 0
    useful_slot_steps: int = 0
    queued_slot_steps: int = 0  # the same two while requests were still waiting
    queued_useful_slot_steps: int = 0
    prefilled_tokens: int = 0
    shared_prefills: int = 0
    back_offs: int = 0  # how often memory ran out

    def count(self, *, steps: int, rows: int, slots: int, useful: int, queued: bool) -> None:
        self.steps += steps
        self.slot_steps += steps * rows
        self.useful_slot_steps += useful
        if queued:
            self.queued_slot_steps += steps * slots
            self.queued_useful_slot_steps += useful


@dataclass
class Row:
    """The host's view of an occupied slot."""

    request: Request
    limit: int
    generated: int = 0
    searched: int = 0  # tokens already searched for stop strings

    @property
    def cached(self) -> int:
        """Tokens in the cache."""
        return len(self.request.prompt_token_ids) - 1 + self.generated


@dataclass
class Queue:
    """Requests still to come. Pulled lazily, so that a long stream is never held in memory."""

    source: Iterator[Request]
    exhausted: bool = False
    returned: deque[Request] = field(default_factory=deque)

    def take(self) -> Request | None:
        request = self.returned.popleft() if self.returned else next(self.source, None)
        self.exhausted = request is None
        return request

    def put_back(self, requests: Iterable[Request]) -> None:
        """Requests that will have to start again."""
        self.returned.extend(requests)
        self.exhausted = False
