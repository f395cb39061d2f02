"""`Score`: a reward for every response, written to `scores.parquet` (prompt_id, sample, response, reward, ...)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cong.data import RESPONSES, SCORES, read_rows, write_rows
from cong.data.conversations import CARRIED
from cong.generation.needs import without_adapter
from cong.graph.demand import Demand
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import Usage, Work
from cong.models import largest
from cong.models.work import response_bytes
from cong.scoring.reward import Reward


@dataclass(frozen=True, kw_only=True)
class Score(Stage):
    """The rewards of all responses of a stage by one reward, which the field calls their judge."""

    responses: Stage
    judge: Reward
    max_error_share: float = 0.01

    def label(self) -> str:
        return str(self.judge)

    def check(self) -> None:
        self.judge.check()

    def execution(self, resources: Resources) -> Resources:
        # Rewards are no decoders: one GPU holds each.
        execution = super().execution(resources)
        return execution if execution.decoding.tensor_parallel == 1 else execution.changed(tensor_parallel=1)

    def demand(self, resources: Resources) -> Demand:
        return self.judge.demand(self.execution(resources))

    def parameters(self) -> int | None:
        return largest(*without_adapter(self.judge.models))

    def memory(self, resources: Resources) -> Need | None:
        new_tokens = self.responses.new_tokens
        if new_tokens is None:
            return None
        return self.judge.need(new_tokens=new_tokens, resources=self.execution(resources))

    def work(self, resources: Resources) -> Work:
        rows = self.row_count()
        return self.judge.work(rows=rows, resources=resources) + Work(disk_bytes=response_bytes(rows) / 2, stages=0)

    def usage(self, results: Mapping[str, Any]) -> Usage:
        return Usage.of_tokens(results) if self.judge.models else Usage()

    def row_count(self) -> int:
        return self.responses.row_count()

    def prompt_count(self) -> int:
        return self.responses.prompt_count()

    @property
    def evaluated_model(self) -> Any:
        return self.responses.evaluated_model

    def run(self, ctx: Context) -> None:
        path, reward = ctx.path(self.responses) / RESPONSES, self.judge
        rows = read_rows(path, columns=reward.COLUMNS, optional=CARRIED)
        scored = reward.score(ctx, rows, max_error_share=self.max_error_share)
        write_rows(ctx.out / SCORES, scored)
        rewards = [row["reward"] for row in scored if row["reward"] is not None]
        ctx.summary(rows=len(scored), scored_rows=len(rewards), mean_reward=sum(rewards) / max(len(rewards), 1))
