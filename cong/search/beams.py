"""Beams: responses as far as they go, what they become by one more chunk, and which of them are kept.

beams = best(distinct(beam.extended(completion, most=512) for completion in completions), width=2)
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cong.decoding import Completion


@dataclass(frozen=True, kw_only=True)
class Beam:
    """A response as far as it goes, in the strong model's tokens; the one that ended it is the last of them."""

    tokens: tuple[int, ...] = ()
    ended: Literal["stop", "length"] | None = None
    """Why it ended, as a `finish_reason`; None while it is still going on."""
    stop_token_id: int | None = None
    logprob: float = 0.0
    """Sum of log pi of the strong model, in nats."""
    reward: float = 0.0
    """log pi_r - log pi_ref of the weak pair, in nats."""

    @property
    def text_tokens(self) -> tuple[int, ...]:
        """The tokens before the end."""
        return self.tokens if self.stop_token_id is None else self.tokens[:-1]

    def extended(self, completion: "Completion", *, most: int) -> "Beam":
        """Return the beam with the chunk that was decoded behind it; it ends with a stop token, or at `most` tokens."""
        stop = completion.stop_token_id
        tokens = (*self.tokens, *completion.token_ids, *(() if stop is None else (stop,)))
        full = len(tokens) >= most
        return Beam(
            tokens=tokens,
            ended="stop" if completion.finish_reason == "stop" else "length" if full else None,
            stop_token_id=stop,
            logprob=self.logprob + completion.logprob_post,
        )

    def rewarded(self, reward: float) -> "Beam":
        """Return the beam with its reward."""
        return dataclasses.replace(self, reward=reward)


def distinct(candidates: Iterable[Beam]) -> list[Beam]:
    """Return candidates without those that are equal, token by token, to an earlier one."""
    first: dict[tuple[int, ...], Beam] = {}
    for beam in candidates:
        first.setdefault(beam.tokens, beam)
    return list(first.values())


def best(candidates: Iterable[Beam], *, width: int) -> list[Beam]:
    """Return the `width` candidates with the highest rewards, the best first; of equal ones the earlier."""
    return sorted(candidates, key=lambda beam: -beam.reward)[:width]
