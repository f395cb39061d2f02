"""The rewards that there are; `cong.scoring.reward` says what a reward is.

ExactReward(world=world)                      the reward that defines the synthetic chat world
RewardModel(model=armorm)                     a sequence classifier
ImplicitReward(post=weak_aligned, pre=weak)   log pi_r - log pi_ref of a weak pair
Likelihood(model=student)                     log pi of one model
AnswerMatch()                                 1 when the final answer is that of the row's reference
UnitTests()                                   1 when the code passes the row's reference, which is tests
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cong.data import REFERENCE, Row
from cong.data.answers import final_answer, same_answer
from cong.data.map_rows import Worker, map_rows
from cong.graph.demand import Demand
from cong.graph.fingerprint import LATER, fields_of
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.graph.stage import Context
from cong.models import HubModel, Model, check_model, check_pair, describe, pair_dirs
from cong.sandbox import Limits
from cong.scoring.classifiers import RewardScorer
from cong.scoring.needs import classifying_need, logprob_need
from cong.scoring.reading import READERS, Reads
from cong.scoring.reward import ModelReward, Reward
from cong.scoring.scored import SPOKEN
from cong.scoring.scorers import LogprobScorer, TestRunner
from cong.synthetic.world import World

SCORED = 2
"""Version of the tokens that are scored of a row. 1: the text tokenized again, closed with the tokenizer's own end."""
EXTRACTED = 2
"""Version of the answers and programs that are found in responses. 1: whole `####` lines, fences matched as a pair."""


@dataclass(frozen=True, kw_only=True)
class ExactReward(Reward):
    """The reward that defines the synthetic world."""

    world: World

    def __str__(self) -> str:
        return "exact"

    def of(self, row: Row) -> float:
        from cong.synthetic.reward import exact_reward

        finished = row["finish_reason"] == "stop"
        return exact_reward(self.world, prompt=row["prompt"], response=row["response"], finished=finished)


@dataclass(frozen=True, kw_only=True)
class RewardModel(ModelReward):
    """A sequence-classification model with one score per conversation, such as ArmoRM.

    Of a classifier with several labels, `label` says whose logit is the reward, counted from 0. An encoder without a
    chat template `reads` a "pair": the question and the answer, of conversations with one turn of each
    (`cong.scoring.reading`).
    """

    model: Model
    label: int | None = field(default=None, metadata=LATER)
    reads: Reads = field(default="chat", metadata=LATER)

    def __post_init__(self) -> None:
        if self.reads not in READERS:
            raise ValueError(f"reads = {self.reads!r} is not one of {', '.join(READERS)}")

    def identity(self) -> Any:
        """Return the model, and what is chosen of the rest."""
        return {"class": "RewardModel", **fields_of(self)}

    def __str__(self) -> str:
        return describe(self.model).split("/")[-1]

    @property
    def models(self) -> tuple[Model, ...]:
        return (self.model,)

    def need(self, *, new_tokens: int, resources: Resources) -> Need | None:
        return classifying_need(self.model, new_tokens=new_tokens, resources=resources)

    def worker(self, directories: tuple[Path, ...], resources: Resources) -> Worker:
        trusted = isinstance(self.model, HubModel) and self.model.trust_remote_code
        return RewardScorer(directories[0], resources, trust_remote_code=trusted, label=self.label, reads=self.reads)


@dataclass(frozen=True, kw_only=True)
class LogprobReward(ModelReward):
    """Base of what a teacher-forced pass gives: log-probabilities of whole responses, in nats.

    A response is the tokens that were decoded, as far as the model has the same (`cong.data.formatting`).
    """

    COLUMNS = SPOKEN

    def identity(self) -> Any:
        """Return the models, and the version of what is scored of a row."""
        return {"class": type(self).__name__, "version": SCORED, **fields_of(self)}

    def need(self, *, new_tokens: int, resources: Resources) -> Need | None:
        return logprob_need(self.models, new_tokens=new_tokens, resources=resources)

    def worker(self, directories: tuple[Path, ...], resources: Resources) -> Worker:
        return LogprobScorer(directories, resources)


@dataclass(frozen=True, kw_only=True)
class ImplicitReward(LogprobReward):
    """log pi_r(y|x) - log pi_ref(y|x) of a weak pair, in nats, by a teacher-forced pass (Eq. 4 and 6 without beta).

    x and y are the tokens that the pair decoded, with the template of pi_r and the end token that ended the row.
    """

    post: Model
    pre: Model

    def __str__(self) -> str:
        return "implicit"

    @property
    def models(self) -> tuple[Model, ...]:
        return (self.post, self.pre)

    def check(self) -> None:
        check_model(self.post, adapter=True)
        check_model(self.pre)
        check_pair(self.post, self.pre)

    def directories(self, ctx: Context) -> tuple[Path, ...]:
        return pair_dirs(ctx, self.post, self.pre, shared=True)


@dataclass(frozen=True, kw_only=True)
class Likelihood(LogprobReward):
    """log pi(y|x) of one model, in nats, by a teacher-forced pass."""

    model: Model

    def __str__(self) -> str:
        return "likelihood"

    @property
    def models(self) -> tuple[Model, ...]:
        return (self.model,)


@dataclass(frozen=True, kw_only=True)
class AnswerMatch(Reward):
    """1 when the final answer equals the reference of the prompt, else 0 (`cong.data.answers`)."""

    NEEDS_REFERENCE = True

    def identity(self) -> Any:
        """Return the version of what is found in a response."""
        return {"class": "AnswerMatch", "version": EXTRACTED, **fields_of(self)}

    def __str__(self) -> str:
        return "answer"

    def of(self, row: Row) -> float:
        return float(same_answer(final_answer(row["response"]), row[REFERENCE]))


@dataclass(frozen=True, kw_only=True)
class UnitTests(Reward):
    """1 when the code of a response passes the tests that are the prompt's reference, in the sandbox, else 0."""

    NEEDS_REFERENCE = True
    cpu_seconds: int = 4
    memory_bytes: int = 512 << 20

    def identity(self) -> Any:
        """Return the limits, and the versions of what is found in a response (`cong.data.programs`) and of verdicts."""
        return {"class": "UnitTests", "version": EXTRACTED, "verdicts": 2, **fields_of(self)}

    def __str__(self) -> str:
        return "tests"

    @property
    def limits(self) -> Limits:
        """What a program may use."""
        return Limits(cpu_seconds=self.cpu_seconds, memory_bytes=self.memory_bytes)

    def check(self) -> None:
        from cong.sandbox import check_sandbox

        check_sandbox()

    def demand(self, resources: Resources) -> Demand:
        return Demand(cpus=resources.hardware.threads)

    def score(self, ctx: Context, rows: Sequence[Row], *, max_error_share: float) -> list[Row]:
        # Programs are run by this process: an actor would hold a GPU for them.
        here = dataclasses.replace(ctx, resources=ctx.resources.changed(actors=0))
        runner = partial(TestRunner, self.limits, ctx.resources)
        return map_rows(here, runner, list(rows), max_error_share=max_error_share)
