"""The difference of two rewards of the same responses, such as two log-probabilities.

    student, weak = (Score(responses=samples, judge=Likelihood(model=model)) for model in (student, weak))
    ScoreDifference(scored=student, minus=weak)        # log pi_student - log pi_weak, whatever their tokenizers

It writes `scores.parquet` as `Score` does, so whatever reads scores reads it.
"""

import math
from dataclasses import dataclass
from typing import Any

from cong.data import SCORES, Row, read_rows, write_rows
from cong.data.finite import check_finite
from cong.errors import NothingLeft
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import Work
from cong.models.work import response_bytes
from cong.scoring.score import Score


@dataclass(frozen=True, kw_only=True)
class ScoreDifference(Stage):
    """Of every response the reward of `scored` minus that of `minus`, in their unit.

    A response that one of them has not scored has no reward, and its `error` says why.
    """

    scored: Score
    minus: Score

    def __post_init__(self) -> None:
        if self.scored.responses != self.minus.responses:
            raise ValueError(f"scores of two sets of responses: {self.scored.title} and {self.minus.title}")

    def label(self) -> str:
        return f"{self.scored.label()} - {self.minus.label()}"

    def work(self, resources: Resources) -> Work:
        return Work(disk_bytes=response_bytes(self.row_count()) / 2)

    def row_count(self) -> int:
        return self.scored.row_count()

    def prompt_count(self) -> int:
        return self.scored.prompt_count()

    @property
    def evaluated_model(self) -> Any:
        return self.scored.evaluated_model

    def run(self, ctx: Context) -> None:
        first, second = (read_rows(ctx.path(stage) / SCORES) for stage in (self.scored, self.minus))
        for stage, rows in ((self.scored, first), (self.minus, second)):
            check_finite(rows, columns=("reward",), source=stage.title)
        others = {row["row_id"]: row for row in second}
        rows = [_subtracted(row, others[row["row_id"]]) for row in first]
        found = [row["reward"] for row in rows if row["reward"] is not None]
        if not found:
            raise NothingLeft(f"no response is scored by both {self.scored.title} and {self.minus.title}")
        write_rows(ctx.out / SCORES, rows)
        ctx.summary(rows=len(rows), scored_rows=len(found), mean_reward=math.fsum(found) / len(found))


def _subtracted(row: Row, other: Row) -> Row:
    if row["reward"] is None or other["reward"] is None:
        return row | {"reward": None, "error": row["error"] or other["error"]}
    return row | {"reward": row["reward"] - other["reward"]}
