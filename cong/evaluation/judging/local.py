"""Judges of pairs that need no server: they know the exact reward of the synthetic world.

    ExactComparison(world=world).verdict(Pair(instruction=prompt, output=ours, baseline=theirs))
    NoisyComparison(world=world, noise=0.5, per_word=0.05)      # errs, and likes length

What is compared, and the verdict, are those of all judges.
"""

import math
import random
from dataclasses import dataclass

from cong.evaluation.judging.pairs import LocalJudge, Pair, Verdict
from cong.synthetic.world import World


@dataclass(frozen=True, kw_only=True)
class ExactComparison(LocalJudge):
    """Compares by the exact reward of the synthetic world; equal rewards are a draw."""

    world: World

    def __str__(self) -> str:
        return "exact"

    def verdict(self, pair: Pair) -> Verdict:
        """Return the verdict."""
        ours, theirs = _rewards(self.world, pair)
        return _preferred(ours, theirs)


@dataclass(frozen=True, kw_only=True)
class NoisyComparison(LocalJudge):
    """Compares by the exact reward with an error, and a preference for longer responses.

    Every response's reward is seen with a normal error of `noise`, and `per_word` for each of its words on top. The
    error depends on seed, prompt and response alone: asked again the judge says the same, and two seeds are two judges.
    """

    world: World
    noise: float
    per_word: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise ValueError(f"noise = {self.noise} is below 0")

    def __str__(self) -> str:
        return f"noise={self.noise:g},per_word={self.per_word:g},seed={self.seed}"

    def verdict(self, pair: Pair) -> Verdict:
        """Return the verdict; only equal responses are a draw."""
        ours, theirs = _rewards(self.world, pair)
        texts = (pair.output, pair.baseline)
        seen = [
            reward + self._error(pair.instruction, text) + self.per_word * len(text.split())
            for reward, text in zip((ours, theirs), texts, strict=True)
        ]
        return _preferred(*seen)

    def _error(self, instruction: str, text: str) -> float:
        return random.Random(f"{self.seed}/{instruction}/{text}").gauss(0, self.noise)


def _rewards(world: World, pair: Pair) -> tuple[float, float]:
    from cong.synthetic.reward import exact_reward

    ours, theirs = (
        exact_reward(world, prompt=pair.instruction, response=text, finished=finished)
        for text, finished in zip((pair.output, pair.baseline), pair.finished, strict=True)
    )
    return ours, theirs


def _preferred(ours: float, theirs: float) -> Verdict:
    if not math.isfinite(ours) or not math.isfinite(theirs):
        raise FloatingPointError(f"rewards {ours} and {theirs} cannot be compared")
    return Verdict(preference=1.5 if ours == theirs else 1.0 + (ours > theirs))
