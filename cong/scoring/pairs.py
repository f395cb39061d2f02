"""Preference pairs: best against worst of several candidates, or chosen against rejected of two stages.

    pairs = PreferencePairs(chosen=responses, rejected=samples)
    sides = (Score(responses=side, judge=Likelihood(model=student)) for side in (responses, samples))
    ConfidentPairs(pairs=pairs, **dict(zip(("chosen", "rejected"), sides)), margin=1.0)

All write `pairs.parquet` (prompt_id, prompt, chosen, rejected, and the rewards where they are known).
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from cong.data import PAIRS, RESPONSES, SCORES, Row, by_prompt, read_rows, write_rows
from cong.data.conversations import MESSAGES
from cong.data.finite import check_finite
from cong.errors import NothingLeft
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work


@dataclass(frozen=True, kw_only=True)
class BestAgainstWorst(Stage):
    """Of every prompt's candidates the one with the highest reward against the one with the lowest (appendix C.2).

    A prompt is dropped, and counted, when its candidates are all the same text or all have the same reward.
    """

    scored: Stage

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def row_count(self) -> int:
        return self.scored.prompt_count()

    @property
    def evaluated_model(self) -> Any:
        return self.scored.evaluated_model

    def run(self, ctx: Context) -> None:
        candidates: dict[str, list[Row]] = defaultdict(list)
        rows = read_rows(ctx.path(self.scored) / SCORES)
        check_finite(rows, columns=("reward",), source=self.scored.title)
        for row in rows:
            if row["reward"] is not None:
                candidates[row["prompt_id"]].append(row)
        extremes = [_extremes(rows) for rows in candidates.values()]
        different = [pair for pair in extremes if pair["chosen"] != pair["rejected"]]
        pairs = [pair for pair in different if pair["chosen_reward"] > pair["rejected_reward"]]
        write_rows(ctx.out / PAIRS, _some(pairs))
        identical, tied = len(extremes) - len(different), len(different) - len(pairs)
        ctx.summary(pairs=len(pairs), dropped_identical=identical, dropped_tied=tied)


@dataclass(frozen=True, kw_only=True)
class PreferencePairs(Stage):
    """The responses of `chosen` against those of `rejected` to the same prompts, joined by prompt_id (Eq. 12).

    Pairs of two equal texts carry no preference; they are dropped and counted, as are prompts that one side lacks.
    """

    chosen: Stage
    rejected: Stage

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def row_count(self) -> int:
        return self.chosen.row_count()

    def run(self, ctx: Context) -> None:
        chosen, rejected = (_responses(ctx, side) for side in (self.chosen, self.rejected))
        common = [prompt_id for prompt_id in chosen if prompt_id in rejected]
        pairs = [_pair(chosen[prompt_id], rejected[prompt_id]) for prompt_id in common]
        different = [pair for pair in pairs if pair["chosen"] != pair["rejected"]]
        write_rows(ctx.out / PAIRS, _some(different))
        ctx.summary(
            pairs=len(different),
            dropped_identical=len(pairs) - len(different),
            dropped_unmatched=len(chosen) + len(rejected) - 2 * len(common),
        )


@dataclass(frozen=True, kw_only=True)
class ConfidentPairs(Stage):
    """The pairs in which a judge's score of the chosen response exceeds that of the rejected by more than `margin`.

    `chosen` and `rejected` are scores of both sides by one judge. With `swap`, a pair whose rejected response is better
    by more than the margin is kept the other way round. That no pair is left is a result, and no failure: it is the
    training on them that refuses.
    """

    pairs: PreferencePairs
    chosen: Stage
    rejected: Stage
    margin: float = 0.0
    swap: bool = False

    def __post_init__(self) -> None:
        if not self.margin >= 0:
            raise ValueError(f"margin = {self.margin} is below 0")

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def row_count(self) -> int:
        return self.pairs.row_count()

    def run(self, ctx: Context) -> None:
        gaps = score_gaps(ctx, self.chosen, self.rejected)
        given = read_rows(ctx.path(self.pairs) / PAIRS)
        pairs = [row | {"gap": gaps[row["prompt_id"]]} for row in given if row["prompt_id"] in gaps]
        right = [row | {"swapped": False} for row in pairs if row["gap"] > self.margin]
        wrong = [swapped_pair(row) for row in pairs if row["gap"] < -self.margin]
        kept = right + wrong if self.swap else right
        write_rows(ctx.out / PAIRS, kept)
        ctx.summary(
            pairs=len(kept),
            swapped=len(kept) - len(right),
            dropped_by_margin=len(pairs) - len(kept),
            dropped_unscored=len(given) - len(pairs),
        )

    def label(self) -> str:
        return f"{self.chosen.label()},margin={self.margin:g}" + (",swap" if self.swap else "")


@dataclass(frozen=True, kw_only=True)
class PairAgreement(Stage):
    """Diagnosis: in which share of the pairs does a judge prefer the chosen response?

    Stage II can only help where chosen really beats rejected. `chosen` and `rejected` are scores of both sides by one
    judge, before any swap. It changes no pair, so it is no input of the training. Without a pair there is no share.
    """

    pairs: PreferencePairs | ConfidentPairs
    chosen: Stage
    rejected: Stage

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def run(self, ctx: Context) -> None:
        scored = score_gaps(ctx, self.chosen, self.rejected)
        pairs = read_rows(ctx.path(self.pairs) / PAIRS)
        signed = ((row["prompt_id"], -1 if row.get("swapped") else 1) for row in pairs)
        gaps = [sign * scored[prompt_id] for prompt_id, sign in signed if prompt_id in scored]
        ctx.summary(pairs=len(gaps))
        if gaps:
            wins = sum(gap > 0 for gap in gaps) + 0.5 * sum(gap == 0 for gap in gaps)
            ctx.summary(chosen_better=wins / len(gaps), mean_gap=sum(gaps) / len(gaps))

    def label(self) -> str:
        return self.chosen.label()


def _extremes(candidates: list[Row]) -> Row:
    # NaN is neither above nor below a number: with it, which one is best would depend on the order.
    candidates = [row for row in candidates if math.isfinite(row["reward"])]
    best = max(candidates, key=lambda row: (row["reward"], -row["sample"]))
    worst = min(candidates, key=lambda row: (row["reward"], row["sample"]))
    return {**_pair(best, worst), "chosen_reward": best["reward"], "rejected_reward": worst["reward"]}


def score_gaps(ctx: Context, chosen: Stage, rejected: Stage) -> dict[str, float]:
    """Return by how much the chosen response is scored higher than the rejected one, where both have a score."""
    one, other = (_scores(ctx, side) for side in (chosen, rejected))
    scores = {
        prompt_id: (one[prompt_id]["reward"], other[prompt_id]["reward"]) for prompt_id in one if prompt_id in other
    }
    return {prompt_id: a - b for prompt_id, (a, b) in scores.items() if a is not None and b is not None}


def _scores(ctx: Context, stage: Stage) -> dict[str, Row]:
    rows = read_rows(ctx.path(stage) / SCORES)
    check_finite(rows, columns=("reward",), source=stage.title)
    return by_prompt(rows)


def swapped_pair(row: Row) -> Row:
    """Return a pair, with its gap and its rewards, the other way round."""
    sides = {"chosen": "rejected", "rejected": "chosen"}
    rewards = {f"{one}_reward": row[f"{other}_reward"] for one, other in sides.items() if f"{other}_reward" in row}
    return row | {one: row[other] for one, other in sides.items()} | rewards | {"gap": -row["gap"], "swapped": True}


def _pair(chosen: Row, rejected: Row) -> Row:
    return {
        "prompt_id": chosen["prompt_id"],
        "prompt": chosen["prompt"],
        "chosen": chosen["response"],
        "rejected": rejected["response"],
        **{name: chosen[name] for name in (MESSAGES,) if name in chosen},
    }


def _responses(ctx: Context, stage: Stage) -> dict[str, Row]:
    rows = read_rows(
        ctx.path(stage) / RESPONSES, columns=("prompt_id", "prompt", "response", "error"), optional=(MESSAGES,)
    )
    return by_prompt(row for row in rows if row["error"] is None)


def _some(pairs: list[Row]) -> list[Row]:
    if not pairs:
        raise NothingLeft("no preference pair is left: all responses of a prompt are the same, or their rewards are")
    return pairs
