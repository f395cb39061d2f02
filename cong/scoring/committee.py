"""Pairs by several rewards at once, each with what every member of this committee says of it.

    scored = tuple(Score(responses=candidates, judge=pair) for pair in weak_pairs)
    pairs = CommitteePairs(scored=scored)
    MemberAgreement(pairs=pairs, truth=Score(responses=candidates, judge=explicit))

Nats of two weak pairs are not comparable: rewards are centred by prompt, and divided by the member's standard deviation
over all candidates. What a member says of a pair is the margin of the rewards so made.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cong.data import MARGINS, PAIRS, SCORES, Row, read_rows, write_rows
from cong.data.conversations import MESSAGES
from cong.data.finite import check_finite
from cong.errors import NothingLeft
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work
from cong.scoring.score import Score
from cong.scoring.weighed import rewards_by_text

Pairing = Literal["drawn", "extremes"]


@dataclass(frozen=True, kw_only=True)
class CommitteePairs(Stage):
    """Of every prompt two candidates with each member's margin, first the one that all in the mean like better.

    They are the first two `drawn` that differ: no member has a say in which are compared. Or they are the `extremes`,
    best against worst by the mean of all members, where the weight of a member can hardly matter any more: such a pair
    is seldom turned by fewer members. The column `margins` holds one number per member, in its standard deviations;
    below 0 the member would have the pair the other way round. A candidate that a member has not scored is left out; a
    prompt is dropped, and counted, when its candidates are all the same text, or no member prefers one of the two.
    """

    scored: tuple[Score, ...]
    pairing: Pairing = "drawn"

    def __post_init__(self) -> None:
        if self.pairing not in ("drawn", "extremes"):
            raise ValueError(f"pairing = {self.pairing!r} is not one of drawn, extremes")
        if not self.scored:
            raise ValueError("a committee has one member at least")
        if len({stage.responses.fingerprint for stage in self.scored}) > 1:
            raise ValueError("the members of a committee have scored different responses")

    def label(self) -> str:
        return f"members={len(self.scored)},{self.pairing}"

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def row_count(self) -> int:
        return self.scored[0].prompt_count()

    @property
    def evaluated_model(self) -> Any:
        return self.scored[0].evaluated_model

    def run(self, ctx: Context) -> None:
        candidates = self._candidates(ctx)
        scales = _standardize(candidates)
        two = _extremes if self.pairing == "extremes" else _drawn
        every = [_pair(*two(rows)) for rows in candidates.values()]
        pairs = [pair for pair in every if pair["chosen"] != pair["rejected"] and any(pair[MARGINS])]
        if not pairs:
            raise NothingLeft("no pair is left: all responses of a prompt are the same, or their rewards are")
        write_rows(ctx.out / PAIRS, pairs)
        agreed = sum(agree(pair[MARGINS]) for pair in pairs)
        ctx.summary(pairs=len(pairs), agreed=agreed, dropped=len(every) - len(pairs))
        for number, scale in enumerate(scales, start=1):
            ctx.summary(**{f"deviation_{number}": scale})

    def _candidates(self, ctx: Context) -> dict[str, list[Row]]:
        """Return by prompt the candidates that all members have scored, with their rewards."""
        tables = [{row["row_id"]: row for row in self._rows(ctx, stage)} for stage in self.scored]
        found: dict[str, list[Row]] = defaultdict(list)
        for row_id, row in tables[0].items():
            rewards = [table[row_id]["reward"] for table in tables]
            if None not in rewards:
                found[row["prompt_id"]].append(row | {"rewards": rewards})
        return found

    def _rows(self, ctx: Context, stage: Score) -> list[Row]:
        rows = read_rows(ctx.path(stage) / SCORES)
        check_finite(rows, columns=("reward",), source=stage.title)
        return rows


def agree(margins: Sequence[float]) -> bool:
    """Return whether all members would have a pair the same way round."""
    return all(margin > 0 for margin in margins) or all(margin < 0 for margin in margins)


def _standardize(candidates: dict[str, list[Row]]) -> list[float]:
    """Centre rewards by prompt, divide them by the member's deviation over all, and return the deviations."""
    for rows in candidates.values():
        means = [math.fsum(column) / len(rows) for column in zip(*(row["rewards"] for row in rows), strict=True)]
        for row in rows:
            row["rewards"] = [reward - mean for reward, mean in zip(row["rewards"], means, strict=True)]
    every = [row for rows in candidates.values() for row in rows]
    columns = zip(*(row["rewards"] for row in every), strict=True)
    scales = [math.sqrt(math.fsum(reward**2 for reward in column) / len(every)) for column in columns]
    for row in every:
        # A member that likes all candidates equally says nothing of them.
        both = zip(row["rewards"], scales, strict=True)
        row["rewards"] = [reward / scale if scale else 0.0 for reward, scale in both]
    return scales


def _extremes(rows: list[Row]) -> tuple[Row, Row]:
    best = max(rows, key=lambda row: (_mean(row["rewards"]), -row["sample"]))
    return best, min(rows, key=lambda row: (_mean(row["rewards"]), row["sample"]))


def _drawn(rows: list[Row]) -> tuple[Row, Row]:
    first, *others = sorted(rows, key=lambda row: row["sample"])
    second = next((row for row in others if row["response"] != first["response"]), first)
    return (first, second) if _mean(first["rewards"]) >= _mean(second["rewards"]) else (second, first)


def _pair(best: Row, worst: Row) -> Row:
    margins = [one - other for one, other in zip(best["rewards"], worst["rewards"], strict=True)]
    return {
        "prompt_id": best["prompt_id"],
        "prompt": best["prompt"],
        "chosen": best["response"],
        "rejected": worst["response"],
        **{name: best[name] for name in (MESSAGES,) if name in best},
        "chosen_reward": _mean(margins),
        "rejected_reward": 0.0,
        MARGINS: margins,
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


@dataclass(frozen=True, kw_only=True)
class MemberAgreement(Stage):
    """Diagnosis: how often each member of a committee has a pair the way round that the truth has.

    `accuracy_1` is the share of the first member, and so on; pairs whose sides the truth likes equally are left out, a
    margin of 0 counts one half. It is no input of the training.
    """

    pairs: CommitteePairs
    truth: Score

    def label(self) -> str:
        return self.pairs.label()

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def run(self, ctx: Context) -> None:
        known = rewards_by_text(ctx, (self.truth,))
        judged: list[tuple[float, list[float]]] = []
        for row in read_rows(ctx.path(self.pairs) / PAIRS):
            sides = [known.get((row["prompt_id"], row[side])) for side in ("chosen", "rejected")]
            if sides[0] is not None and sides[1] is not None and sides[0] != sides[1]:
                judged.append((sides[0] - sides[1], row[MARGINS]))
        ctx.summary(pairs=len(judged))
        for number in range(len(self.pairs.scored) if judged else 0):
            shares = [_right(gap, margins[number]) for gap, margins in judged]
            ctx.summary(**{f"accuracy_{number + 1}": _mean(shares)})


def _right(gap: float, margin: float) -> float:
    return 0.5 if margin == 0 else float((gap > 0) == (margin > 0))
