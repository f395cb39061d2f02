"""Weights of preference pairs by how sure a reward is of them, and whether the sure ones are the right ones.

    weighed = WeighedPairs(pairs=BestAgainstWorst(scored=scored), beta=0.1)
    DPO(model=strong, data=weighed, weighted=True, ...)
    AgreementByWeight(pairs=weighed, scored=(Score(responses=candidates, judge=explicit),))

Confidence-weighted preference optimization (CW-PO, arXiv:2603.04968) multiplies a pair's loss by the confidence
C = 2 (sigmoid(r(chosen) - r(rejected)) - 1/2), which lies in [0, 1]; here r is `beta` times a reward of the pair.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from cong.data import PAIRS, SCORES, WEIGHT, Row, read_rows, write_rows
from cong.data.finite import check_finite
from cong.errors import NothingLeft
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work
from cong.scoring.pairs import score_gaps, swapped_pair

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True, kw_only=True)
class WeighedPairs(Stage):
    """Pairs with a `weight`: C = 2 (sigmoid(beta (reward(chosen) - reward(rejected))) - 1/2), from 0 to 1.

    The rewards are those of the pairs themselves (`chosen_reward`, `rejected_reward`, as `BestAgainstWorst` writes
    them), or where they are given the scores `chosen` and `rejected` of both sides by one judge. `beta` makes them
    free of a unit: of an implicit reward, in nats, it is the beta of the alignment. A pair whose rejected response has
    the higher reward has weight 0, or with `swap` is turned round: a negative weight would drive the loss to minus
    infinity. Quantiles of the weights are in the summary.
    """

    pairs: Stage
    beta: float
    chosen: Stage | None = None
    rejected: Stage | None = None
    swap: bool = False

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta = {self.beta} is not above 0")
        if (self.chosen is None) != (self.rejected is None):
            raise ValueError("scores of both sides are needed, or of neither")

    def label(self) -> str:
        return f"beta={self.beta:g}" + (",swap" if self.swap else "")

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def row_count(self) -> int:
        return self.pairs.row_count()

    def run(self, ctx: Context) -> None:
        given = read_rows(ctx.path(self.pairs) / PAIRS)
        gaps = self._gaps(ctx, given)
        pairs = [row | {"gap": gaps[row["prompt_id"]], "swapped": False} for row in given if row["prompt_id"] in gaps]
        turned = [swapped_pair(row) if self.swap and row["gap"] < 0 else row for row in pairs]
        weighed = [row | {WEIGHT: confidence(row["gap"], beta=self.beta)} for row in turned]
        if not weighed:
            raise NothingLeft(f"of no pair of {self.pairs.title} are both sides scored")
        write_rows(ctx.out / PAIRS, weighed)
        ctx.summary(
            pairs=len(weighed),
            swapped=sum(row["swapped"] for row in weighed),
            weight_zero=sum(row[WEIGHT] == 0 for row in weighed),
            dropped_unscored=len(given) - len(weighed),
            **spread([row[WEIGHT] for row in weighed]),
        )

    def _gaps(self, ctx: Context, pairs: list[Row]) -> dict[str, float]:
        if self.chosen is not None and self.rejected is not None:
            return score_gaps(ctx, self.chosen, self.rejected)
        names = ("chosen_reward", "rejected_reward")
        if any(row.get(name) is None for row in pairs for name in names):
            raise ValueError(f"{self.pairs.title} holds no rewards of its pairs: give the scores of both sides")
        check_finite(pairs, columns=names, source=self.pairs.title)
        return {row["prompt_id"]: row["chosen_reward"] - row["rejected_reward"] for row in pairs}


@dataclass(frozen=True, kw_only=True)
class AgreementByWeight(Stage):
    """Diagnosis: does a judge prefer the chosen response the more often, the larger the weight of a pair?

    Pairs are cut by weight into `parts` of equal size, the smallest weights first. Of each the summary holds the share
    in which the judge prefers the chosen response (ties count one half), the mean weight, and the number of pairs:
    `chosen_better_1`, `weight_1`, `pairs_1`, and so on. Where the share does not rise, weights cannot help. `scored`
    are scores by one judge that hold both responses of the pairs; they are found by prompt and text.
    """

    pairs: WeighedPairs
    scored: tuple[Stage, ...]
    parts: int = 4

    def __post_init__(self) -> None:
        if self.parts < 1 or not self.scored:
            raise ValueError(f"parts = {self.parts} is below 1, or there are no scores")

    def label(self) -> str:
        return f"{self.scored[0].label()},parts={self.parts}"

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def run(self, ctx: Context) -> None:
        known = rewards_by_text(ctx, self.scored)
        pairs = read_rows(ctx.path(self.pairs) / PAIRS)
        judged = [(row[WEIGHT], _preference(row, known)) for row in sorted(pairs, key=lambda row: row["prompt_id"])]
        found = sorted(((weight, share) for weight, share in judged if share is not None), key=lambda one: one[0])
        ctx.summary(pairs=len(found), unscored=len(judged) - len(found))
        for number, part in enumerate(_cut(found, self.parts), start=1):
            shares, weights = [share for _, share in part], [weight for weight, _ in part]
            ctx.summary(**{f"pairs_{number}": len(part)})
            if part:
                means = {"chosen_better": _mean(shares), WEIGHT: _mean(weights)}
                ctx.summary(**{f"{name}_{number}": value for name, value in means.items()})


def rewards_by_text(ctx: Context, stages: Sequence[Stage]) -> dict[tuple[str, str], float]:
    """Return the rewards of scores by prompt and text; the mean where a text was drawn several times."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for stage in stages:
        rows = read_rows(ctx.path(stage) / SCORES, columns=("prompt_id", "response", "reward"))
        check_finite(rows, columns=("reward",), source=stage.title)
        for row in rows:
            if row["reward"] is not None:
                found[row["prompt_id"], row["response"]].append(row["reward"])
    return {key: _mean(rewards) for key, rewards in found.items()}


def confidence(gap: float, *, beta: float) -> float:
    """Return 2 (sigmoid(beta gap) - 1/2), 0 where the gap is negative."""
    # The same number as tanh(beta gap / 2), which keeps its digits near 0.
    return math.tanh(beta * max(gap, 0.0) / 2)


def spread(weights: Sequence[float]) -> dict[str, float]:
    """Return mean and quantiles of weights for a summary: `weight_mean`, `weight_q10`, ..."""
    import numpy as np

    found = (float(np.quantile(weights, share)) for share in QUANTILES)
    names = (f"weight_q{100 * share:.0f}" for share in QUANTILES)
    return {"weight_mean": _mean(weights), **dict(zip(names, found, strict=True))}


def _preference(row: Row, known: dict[tuple[str, str], float]) -> float | None:
    """Return 1 where the judge prefers the chosen response, 1/2 for a tie, None where it has not scored both."""
    sides = [known.get((row["prompt_id"], row[side])) for side in ("chosen", "rejected")]
    if sides[0] is None or sides[1] is None:
        return None
    return float(sides[0] > sides[1]) + 0.5 * (sides[0] == sides[1])


def _cut(found: list[tuple[float, float]], parts: int) -> list[list[tuple[float, float]]]:
    bounds = [len(found) * number // parts for number in range(parts + 1)]
    return [found[start:end] for start, end in itertools.pairwise(bounds)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
