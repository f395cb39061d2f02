"""What the models of an engine make of their logits: the scores from which a token is chosen.

    Plain()       one model       its logits
    Contrast(...) pi_r, pi_ref    F of contrastive decoding (`cong.decoding.score`)
    Proxy()       pi, pi_r, pi_ref    z + w (z_r - z_ref): proxy tuning of the anchor pi by a weak pair

An engine holds its models in the order of `roles`, and asks its combination for scores; a coefficient comes with every
row. All of it stays on the device, so that a step can be captured as a graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from torch import Tensor

from cong.decoding.score import contrastive_scores, proxy_scores
from cong.decoding.types import Decoding, Request

Role = Literal["anchor", "post", "pre"]
Held = TypeVar("Held")


class Combination(Protocol):
    """How the scores of several models become one."""

    @property
    def roles(self) -> tuple[Role, ...]:
        """Which models there are, in the order of their logits; the first decides where a response ends."""
        ...

    def coefficient(self, request: Request) -> float:
        """Return the row's own number that `scores` is given."""
        ...

    def scores(self, logits: Sequence[Tensor], logprobs: Sequence[Tensor], *, coefficient: float | Tensor) -> Tensor:
        """Return scores (..., V) in float32 from the logits and log-probabilities (..., V) of every model.

        `coefficient` is one number, or a tensor of all dimensions but the last.
        """
        ...


@dataclass(frozen=True)
class Plain:
    """Decoding of one model."""

    roles: tuple[Role, ...] = ("post",)

    def coefficient(self, request: Request) -> float:
        return 1.0

    def scores(self, logits: Sequence[Tensor], logprobs: Sequence[Tensor], *, coefficient: float | Tensor) -> Tensor:
        return logits[0].float()


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Contrastive decoding of a pair; the coefficient is alpha."""

    roles: tuple[Role, ...] = ("post", "pre")
    pruning_threshold: float
    kind: Literal["formula", "official"]

    def coefficient(self, request: Request) -> float:
        return request.alpha

    def scores(self, logits: Sequence[Tensor], logprobs: Sequence[Tensor], *, coefficient: float | Tensor) -> Tensor:
        settings = {"pruning_threshold": self.pruning_threshold, "scores": self.kind}
        return contrastive_scores(logprobs[0], logprobs[1], alpha=coefficient, **settings)


@dataclass(frozen=True)
class Proxy:
    """Proxy tuning of the anchor by a pair; the coefficient is the weight w."""

    roles: tuple[Role, ...] = ("anchor", "post", "pre")

    def coefficient(self, request: Request) -> float:
        return request.weight

    def scores(self, logits: Sequence[Tensor], logprobs: Sequence[Tensor], *, coefficient: float | Tensor) -> Tensor:
        return proxy_scores(*logits, weight=coefficient)


def combined(
    *, anchor: Held | None, post: Held, pre: Held | None, decoding: Decoding
) -> tuple[Combination, list[Held]]:
    """Return how models of these roles decode together, and those models in the order of the roles."""
    if pre is None:
        if anchor is not None:
            raise ValueError("an anchor is tuned by a pair: proxy decoding needs `pre`, the model before alignment")
        return Plain(), [post]
    if anchor is not None:
        return Proxy(), [anchor, post, pre]
    return Contrast(pruning_threshold=decoding.pruning_threshold, kind=decoding.scores), [post, pre]
