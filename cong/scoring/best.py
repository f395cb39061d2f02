"""Best of n: of several samples per prompt the one that a reward likes best.

    scored = Score(responses=samples, judge=ImplicitReward(post=aligned, pre=weak))
    SFT(model=strong, data=BestOfN(scored=scored, n=8), ...)

It writes `responses.parquet` as `Generate` does, so whatever reads responses reads it.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from cong.data import RESPONSES, SCORES, Row, copy_rows, read_rows
from cong.data.finite import check_finite
from cong.errors import NothingLeft
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import Work
from cong.models.work import response_bytes
from cong.scoring.score import Score

_READ = ("row_id", "prompt_id", "sample", "reward")


@dataclass(frozen=True, kw_only=True)
class BestOfN(Stage):
    """Of every prompt's first `n` samples the one with the highest reward; of several the first.

    The rows are those of the responses, unchanged: with n = 1 they are the first samples. A prompt without a rewarded
    sample is left out, and counted. Several n over the same scores share samples and scores.
    """

    scored: Score
    n: int
    responses: Stage = field(init=False)
    """Derived from `scored`; a field, so that the graph sees it as an input."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "responses", self.scored.responses)
        drawn = self.responses.row_count() // max(self.responses.prompt_count(), 1)
        if self.n < 1:
            raise ValueError(f"n = {self.n} is below 1")
        if drawn and self.n > drawn:
            raise ValueError(f"n = {self.n} is more than the {drawn} samples per prompt of {self.responses.title}")

    def label(self) -> str:
        return f"{self.scored.label()},n={self.n}"

    def work(self, resources: Resources) -> Work:
        return Work(disk_bytes=response_bytes(self.row_count()))

    def row_count(self) -> int:
        return self.responses.prompt_count()

    @property
    def new_tokens(self) -> int | None:
        return self.responses.new_tokens

    @property
    def evaluated_model(self) -> Any:
        return self.responses.evaluated_model

    def run(self, ctx: Context) -> None:
        rows = read_rows(ctx.path(self.scored) / SCORES, columns=_READ)
        check_finite(rows, columns=("reward",), source=self.scored.title)
        best = best_rows(rows, n=self.n)
        if not best:
            raise NothingLeft(f"{self.scored.title} holds no reward: of no prompt is there a best response")
        row_ids = [row["row_id"] for row in best]
        copy_rows(ctx.path(self.responses) / RESPONSES, ctx.out / RESPONSES, row_ids=row_ids)
        rewards = [row["reward"] for row in best]
        dropped = len({row["prompt_id"] for row in rows}) - len(best)
        ctx.summary(rows=len(best), dropped_unscored=dropped, mean_best_reward=math.fsum(rewards) / len(rewards))


def best_rows(rows: list[Row], *, n: int) -> list[Row]:
    """Return the best of the first n samples of every prompt, prompts in the order in which they first come."""
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row["sample"]):
        known = best.get(row["prompt_id"])
        if row["reward"] is not None and row["sample"] < n and (known is None or row["reward"] > known["reward"]):
            best[row["prompt_id"]] = row
    order = dict.fromkeys(row["prompt_id"] for row in rows)
    return [best[prompt_id] for prompt_id in order if prompt_id in best]
