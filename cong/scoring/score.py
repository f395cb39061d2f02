"""`Score`: a reward for every response, written to `scores.parquet` (prompt_id, sample, response, reward, ...)."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cong.data import REFERENCE, RESPONSES, SCORES, Row, check_failures, read_rows, write_rows
from cong.data.map_rows import Worker, map_rows
from cong.generation.needs import without_adapter
from cong.graph.demand import Demand
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.models import largest, model_dir, pair_dirs
from cong.scoring.needs import scoring_need
from cong.scoring.rewards import (
    AnswerMatch,
    ExactReward,
    ImplicitReward,
    Judge,
    Likelihood,
    NeedsReference,
    RewardModel,
    UnitTests,
    check_judge,
    judge_models,
    trusts_remote_code,
)
from cong.scoring.scorers import KEPT, SPOKEN, LogprobScorer, RewardScorer, TestRunner, answer_row, exact_row


@dataclass(frozen=True, kw_only=True)
class Score(Stage):
    """The rewards of all responses of a stage by one judge."""

    responses: Stage
    judge: Judge
    max_error_share: float = 0.01

    def label(self) -> str:
        return str(self.judge)

    def check(self) -> None:
        check_judge(self.judge)

    def execution(self, resources: Resources) -> Resources:
        # Judges are no decoders: one GPU holds each.
        execution = super().execution(resources)
        return execution if execution.tensor_parallel == 1 else dataclasses.replace(execution, tensor_parallel=1)

    def demand(self, resources: Resources) -> Demand:
        if judge_models(self.judge):
            return self.execution(resources).generation_demand()
        return Demand(cpus=resources.threads if isinstance(self.judge, UnitTests) else 1)

    def parameters(self) -> int | None:
        return largest(*without_adapter(judge_models(self.judge)))

    def memory(self, resources: Resources) -> Need | None:
        new_tokens = getattr(self.responses, "max_new_tokens", None)
        if new_tokens is None:
            return None
        return scoring_need(self.judge, new_tokens=new_tokens, resources=self.execution(resources))

    def run(self, ctx: Context) -> None:
        rows = read_rows(ctx.path(self.responses) / RESPONSES, columns=self._columns())
        scored = self._score(ctx, rows)
        write_rows(ctx.out / SCORES, scored)
        rewards = [row["reward"] for row in scored if row["reward"] is not None]
        ctx.summary(rows=len(scored), scored_rows=len(rewards), mean_reward=sum(rewards) / max(len(rewards), 1))

    def _columns(self) -> tuple[str, ...]:
        if isinstance(self.judge, NeedsReference):
            return (*KEPT, REFERENCE)
        return SPOKEN if isinstance(self.judge, ImplicitReward | Likelihood) else KEPT

    def _score(self, ctx: Context, rows: list[Row]) -> list[Row]:
        if isinstance(self.judge, ExactReward):
            return [exact_row(self.judge.world, row) for row in rows]
        if isinstance(self.judge, AnswerMatch):
            found = [answer_row(row) for row in rows]
            check_failures(
                [new for new, row in zip(found, rows, strict=True) if not row["error"]], self.max_error_share
            )
            return found
        if isinstance(self.judge, UnitTests):
            # Programs are run by this process: an actor would hold a GPU for them.
            ctx = dataclasses.replace(ctx, resources=dataclasses.replace(ctx.resources, actors=0))
        return map_rows(ctx, self._worker(ctx), rows, max_error_share=self.max_error_share)

    def _worker(self, ctx: Context) -> Callable[[], Worker]:
        if isinstance(self.judge, UnitTests):
            return partial(TestRunner, self.judge.limits, ctx.resources)
        if isinstance(self.judge, ImplicitReward):
            return partial(LogprobScorer, pair_dirs(ctx, self.judge.post, self.judge.pre, shared=True), ctx.resources)
        directories = tuple(model_dir(ctx, model) for model in judge_models(self.judge))
        if isinstance(self.judge, RewardModel):
            trusted = trusts_remote_code(self.judge)
            asked = {"trust_remote_code": trusted, "label": self.judge.label}
            return partial(RewardScorer, directories, ctx.resources, **asked)
        return partial(LogprobScorer, directories, ctx.resources)
