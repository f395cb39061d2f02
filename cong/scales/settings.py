"""A scale: the models, prompts, reward and hyper-parameters that an experiment is run with."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cong.evaluation.contests import Contest
from cong.generation import Sampling
from cong.graph.stage import Stage
from cong.models import Model
from cong.scales.hyperparameters import (
    AlignmentSettings,
    AuxConfSettings,
    CandidateSettings,
    ContrastiveSettings,
    DistilSettings,
    DPOSettings,
    ORPOSettings,
    ProxySettings,
    SFTSettings,
    SimPOSettings,
    TaskSettings,
    WSPOSettings,
)
from cong.scoring import Reward


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What the methods are given; `dataclasses.replace` changes a part of it."""

    name: str
    model: Callable[[str, str, int], Model]
    """(family, size, seed) to the pre-alignment model."""
    prompts: Callable[[int], Stage]
    """Seed to the training prompts."""
    heldout: Callable[[int], Stage]
    """Seed to the prompts of the evaluation."""
    reward: Callable[[int], Reward]
    """Seed to what labels the candidates of the weak alignment, and scores the evaluation."""
    alpha: dict[str, float]
    """Contrastive coefficient per family of the weak pair."""
    sizes: dict[str, tuple[str, str]]
    """Per family the weak and the strong size of the paper's main table."""
    in_domain: Callable[[str], "Scale"]
    """Domain (chat, math, code) to the scale with its prompts, reward and, at tiny scale, models."""
    preferences: Callable[[int], Stage] | None = None
    """Seed to given preference pairs for the weak alignment; None samples and labels candidates."""
    aligned: Callable[[str, str, int], Model | None] = lambda family, size, seed: None
    """(family, size, seed) to an already aligned weak model; None trains it."""
    contests: Callable[[int], tuple[Contest, ...]]
    """Seed to the benchmarks of pairs."""
    second_contests: Callable[[int], tuple[Contest, ...]]
    """The same before another judge."""
    domains: tuple[str, ...]
    """What `in_domain` knows and table 4 has, the domain of the other tables left out."""
    max_new_tokens: int
    candidates: CandidateSettings
    """Of the preference pairs of the weak alignment, and of WeakTeacher's."""
    alignment: AlignmentSettings
    contrastive: ContrastiveSettings
    proxy: ProxySettings
    weak_sft: SFTSettings
    sft: SFTSettings
    """Of Stage I."""
    orpo: ORPOSettings
    simpo: SimPOSettings
    aux_conf: AuxConfSettings
    wspo: WSPOSettings
    distil: DistilSettings
    """Of a round of on-policy distillation."""
    rejected: Sampling
    """How the student draws the rejected responses of Stage II."""
    dpo: DPOSettings
    """Of Stage II."""
    tasks: Callable[[int], TaskSettings]
    """Seed to the downstream tasks."""
    committee_rate: float = 1e-3
    """Learning rate of the weights of RAVEN's members: that of its paper, for some ten thousand steps."""
    ladder: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Per family all of its sizes, the smallest first; a family that it lacks has those of `sizes`."""
    gpu: bool = False
    """Whether the models are too large to be run without a GPU."""
    sampled: Sampling = field(default_factory=lambda: Sampling(temperature=0.7, top_p=0.95))
    """How the sampled evaluation draws."""

    def sizes_of(self, family: str) -> tuple[str, ...]:
        """Return all sizes of a family, the smallest first."""
        return self.ladder.get(family, self.sizes[family])

    @property
    def longest(self) -> str:
        """The family with the most sizes, the first of several: where a gap between sizes can vary the most."""
        return max(self.sizes, key=lambda family: len(self.sizes_of(family)))
