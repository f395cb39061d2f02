"""What a synthetic domain is to the rest: prompts in two disjoint splits, texts about them, and reference answers.

Chat (`World`), math (`MathWorld`) and code (`CodeWorld`) are such domains; tokenizers, models and prompts are made of
any of them by the same stages.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

Split = Literal["train", "heldout"]

_HELDOUT_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Document:
    """One pretraining example: a chat of one turn."""

    prompt: str
    response: str


class Domain(Protocol):
    """A domain is a frozen dataclass: its fields are its identity, everything derives from them."""

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt, in a fixed order."""
        ...

    @cached_property
    def splits(self) -> dict[Split, tuple[int, ...]]:
        """Positions in `prompts` per split."""
        ...

    def document(self, *, split: Split, rng: random.Random) -> Document:
        """Draw one text of the corpus."""
        ...

    def reference(self, prompt: str) -> str | None:
        """What a response is checked against, where that is a text."""
        ...


def split_positions(count: int, *, rng: random.Random) -> dict[Split, tuple[int, ...]]:
    """Return the positions 0 to count - 1 shared out over the splits."""
    order = list(range(count))
    rng.shuffle(order)
    heldout = round(len(order) * _HELDOUT_SHARE)
    return {"heldout": tuple(order[:heldout]), "train": tuple(order[heldout:])}


def is_right(*, quality: float, sharpness: float, bias: float, rng: random.Random) -> bool:
    """Draw whether an author of this quality in (0, 1) knows a fact whose truth has `bias` log-odds over its myth."""
    log_odds = math.log(quality / (1 - quality)) if 0 < quality < 1 else math.copysign(20.0, quality - 0.5)
    return rng.random() < 1 / (1 + math.exp(-sharpness * (log_odds + bias)))


def draw_author(*, good: str, poor: Sequence[str], rng: random.Random) -> tuple[float, str]:
    """Draw an author's quality in (0, 1), and how the text begins.

    The good opener is rarer than each of the poor ones, so a model that imitates everybody mostly begins badly.
    """
    quality = rng.random()
    return quality, good if rng.random() < quality**3 else pick(poor, rng)


def pick(texts: Sequence[str], rng: random.Random) -> str:
    """Draw one text."""
    return texts[rng.randrange(len(texts))]
