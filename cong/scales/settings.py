"""A scale: the models, prompts, judge and hyper-parameters that an experiment is run with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cong.evaluation import Task
from cong.evaluation.contests import Contest
from cong.generation import Sampling
from cong.graph.stage import Stage
from cong.models import Model
from cong.scoring import AnswerMatch, ExactReward, RewardModel, UnitTests

Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What the methods are given. Dictionaries are keyword arguments of the stages that they are named after."""

    name: str
    model: Callable[[str, str, int], Model]
    """(family, size, seed) to the pre-alignment model."""
    prompts: Callable[[int], Stage]
    """Seed to the training prompts."""
    heldout: Callable[[int], Stage]
    """Seed to the prompts of the evaluation."""
    judge: Callable[[int], ExactReward | RewardModel | AnswerMatch | UnitTests]
    """Seed to what labels the candidates of the weak alignment, and scores the evaluation."""
    alpha: dict[str, float]
    """Contrastive coefficient per family of the weak pair."""
    sizes: dict[str, tuple[str, str]]
    """Per family the weak and the strong size of the paper's main table."""
    in_domain: Callable[[str], "Scale"]
    """Domain (chat, math, code) to the scale with its prompts, judge and, at tiny scale, models."""
    contests: Callable[[int], tuple[Contest, ...]]
    """Seed to the benchmarks of pairs."""
    second_contests: Callable[[int], tuple[Contest, ...]]
    """The same before another judge."""
    domains: tuple[str, ...]
    """What `in_domain` knows and table 4 has, the domain of the other tables left out."""
    max_new_tokens: int
    candidates: Settings
    alignment: Settings
    contrastive: Settings
    weak_sft: Settings
    sft: Settings
    orpo: Settings
    simpo: Settings
    aux_conf: Settings
    wspo: Settings
    rejected: Settings
    dpo: Settings
    tasks: tuple[Task, ...] = ()
    """Downstream tasks."""
    task_settings: Callable[[int], Settings] = lambda seed: {}
    """Seed to where the tasks come from, and how they are asked: keyword arguments of `Downstream`."""
    gpu: bool = False
    """Whether the models are too large to be run without a GPU."""
    sampled: Sampling = field(default_factory=lambda: Sampling(temperature=0.7, top_p=0.95))
    """How the sampled evaluation draws."""
