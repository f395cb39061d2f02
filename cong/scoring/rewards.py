"""Judges: what gives a response its reward. A judge is a value; `Score` is the stage that asks it.

ExactReward(world=world)                      the reward that defines the synthetic chat world
RewardModel(model=armorm)                     a sequence classifier
ImplicitReward(post=weak_aligned, pre=weak)   log pi_r - log pi_ref of a weak pair
Likelihood(model=student)                     log pi of one model
AnswerMatch()                                 1 when the final answer is that of the row's reference
UnitTests()                          1 when the code passes the row's reference, which is tests
"""

from dataclasses import dataclass
from typing import Any

from cong.graph.fingerprint import canonical, fields_of
from cong.models import HubModel, Model, check_model, check_same_tokenizer, describe
from cong.sandbox import Limits
from cong.synthetic.world import World

SCORED = 2
"""Version of the tokens that are scored of a row. 1: the text tokenized again, closed with the tokenizer's own end."""
EXTRACTED = 2
"""Version of the answers and programs that are found in responses. 1: whole `####` lines, fences matched as a pair."""


@dataclass(frozen=True, kw_only=True)
class ExactReward:
    """The reward that defines the synthetic world."""

    world: World

    def __str__(self) -> str:
        return "exact"


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """A sequence-classification model with one score per conversation, such as ArmoRM.

    Of a classifier with several labels, `label` says whose logit is the reward, counted from 0.
    """

    model: Model
    label: int | None = None

    def identity(self) -> Any:
        """Return the model, and the label where one is chosen."""
        chosen = {} if self.label is None else {"label": self.label}
        return {"class": "RewardModel", "model": canonical(self.model), **chosen}

    def __str__(self) -> str:
        return describe(self.model).split("/")[-1]


@dataclass(frozen=True, kw_only=True)
class ImplicitReward:
    """log pi_r(y|x) - log pi_ref(y|x) of a weak pair, in nats, by a teacher-forced pass (Eq. 4 and 6 without beta).

    x and y are the tokens that the pair decoded, with the template of pi_r and the end token that ended the row.
    """

    post: Model
    pre: Model

    def identity(self) -> Any:
        """Return the models, and the version of what is scored of a row."""
        return {"class": "ImplicitReward", "version": SCORED, **fields_of(self)}

    def __str__(self) -> str:
        return "implicit"


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """log pi(y|x) of one model, in nats, by a teacher-forced pass (`cong.data.formatting`)."""

    model: Model

    def identity(self) -> Any:
        """Return the model, and the version of what is scored of a row."""
        return {"class": "Likelihood", "version": SCORED, **fields_of(self)}

    def __str__(self) -> str:
        return "likelihood"


@dataclass(frozen=True, kw_only=True)
class AnswerMatch:
    """1 when the final answer equals the reference of the prompt, else 0 (`cong.data.answers`)."""

    def identity(self) -> Any:
        """Return the version of what is found in a response."""
        return {"class": "AnswerMatch", "version": EXTRACTED, **fields_of(self)}

    def __str__(self) -> str:
        return "answer"


@dataclass(frozen=True, kw_only=True)
class UnitTests:
    """1 when the code of a response passes the tests that are the prompt's reference, in the sandbox, else 0."""

    cpu_seconds: int = 4
    memory_bytes: int = 512 << 20

    def identity(self) -> Any:
        """Return the limits, and the version of what is found in a response (`cong.data.programs`)."""
        return {"class": "UnitTests", "version": EXTRACTED, **fields_of(self)}

    def __str__(self) -> str:
        return "tests"

    @property
    def limits(self) -> Limits:
        """What a program may use."""
        return Limits(cpu_seconds=self.cpu_seconds, memory_bytes=self.memory_bytes)


Judge = ExactReward | RewardModel | ImplicitReward | Likelihood | AnswerMatch | UnitTests
NeedsReference = AnswerMatch | UnitTests


def judge_models(judge: Judge) -> tuple[Model, ...]:
    """Return the models that a judge holds, the aligned one of a pair first."""
    if isinstance(judge, ImplicitReward):
        return (judge.post, judge.pre)
    return (judge.model,) if isinstance(judge, RewardModel | Likelihood) else ()


def trusts_remote_code(judge: RewardModel) -> bool:
    """Tell whether the experiment allows the code that lies beside a reward model."""
    return isinstance(judge.model, HubModel) and judge.model.trust_remote_code


def check_judge(judge: Judge) -> None:
    """Raise `UserError` for what can be seen to be missing before anything runs."""
    implicit = isinstance(judge, ImplicitReward)
    for index, model in enumerate(judge_models(judge)):
        check_model(model, adapter=implicit and index == 0)
    if isinstance(judge, ImplicitReward):
        check_same_tokenizer(judge.post, judge.pre)
    if isinstance(judge, UnitTests):
        from cong.sandbox import check_sandbox

        check_sandbox()
