"""What a scale sets for each kind of stage, typed: `scale.sft.stage(model=strong, data=responses, seed=0)`.

A method names models and data, a scale the rest; `dataclasses.replace(scale.sft, epochs=3)` changes one setting.
"""

from dataclasses import dataclass, field, fields
from typing import Literal, TypedDict

from cong.evaluation import Downstream, Task, TaskFolder
from cong.generation import ContrastiveGenerate, ProxyGenerate, Sampling
from cong.graph.stage import Stage
from cong.models import Model
from cong.synthetic.tasks import WorldTasks
from cong.training import DPO, ORPO, SFT, WSPO, AuxConf, Distil, LoRA, SimPO, TopLogprobs


class Steps(TypedDict):
    """What an optimizer step is made of, where a scale has it the same in every training."""

    global_batch_size: int
    max_length: int


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Hyper-parameters of every training; `cong.training.finetune.Finetune` says what they mean."""

    learning_rate: float
    epochs: int = 1
    global_batch_size: int = 64
    scheduler: str = "cosine"
    warmup_ratio: float = 0.1
    max_length: int = 2048
    weight_decay: float = 0.0
    lora: LoRA | None = None


@dataclass(frozen=True, kw_only=True)
class SFTSettings(TrainingSettings):
    """Supervised fine-tuning."""

    def stage(self, *, model: Model, data: Stage, seed: int) -> SFT:
        return SFT(model=model, data=data, seed=seed, **vars(self))


@dataclass(frozen=True, kw_only=True)
class DPOSettings(TrainingSettings):
    """DPO; its beta comes from the method (Stage II sweeps it)."""

    def stage(self, *, model: Model, data: Stage, beta: float, seed: int, weighted: bool = False) -> DPO:
        return DPO(model=model, data=data, beta=beta, seed=seed, weighted=weighted, **vars(self))


@dataclass(frozen=True, kw_only=True)
class AlignmentSettings(TrainingSettings):
    """The alignment of the weak model by DPO, which makes pi_r of pi_ref."""

    beta: float

    def stage(self, *, model: Model, data: Stage, seed: int, weighted: bool = False) -> DPO:
        return DPO(model=model, data=data, seed=seed, weighted=weighted, **vars(self))


@dataclass(frozen=True, kw_only=True)
class ORPOSettings(TrainingSettings):
    """ORPO; `weight` is its lambda."""

    weight: float

    def stage(self, *, model: Model, data: Stage, seed: int) -> ORPO:
        return ORPO(model=model, data=data, seed=seed, **vars(self))


@dataclass(frozen=True, kw_only=True)
class SimPOSettings(TrainingSettings):
    """SimPO; `gamma` is the target margin."""

    beta: float
    gamma: float

    def stage(self, *, model: Model, data: Stage, seed: int) -> SimPO:
        return SimPO(model=model, data=data, seed=seed, **vars(self))


@dataclass(frozen=True, kw_only=True)
class AuxConfSettings(TrainingSettings):
    """Weak SFT with the auxiliary confidence loss."""

    max_weight: float = 0.5
    weight_warmup: float = 0.1

    def stage(self, *, model: Model, data: Stage, seed: int) -> AuxConf:
        return AuxConf(model=model, data=data, seed=seed, **vars(self))


@dataclass(frozen=True, kw_only=True)
class WSPOSettings(TrainingSettings):
    """WSPO; `beta` scales the weak pair's log-ratio."""

    beta: float

    def stage(
        self,
        *,
        model: Model,
        data: Stage,
        post: Model,
        pre: Model,
        matching: Literal["tokens", "sequence"],
        seed: int,
    ) -> WSPO:
        return WSPO(model=model, data=data, post=post, pre=pre, matching=matching, seed=seed, **vars(self))


@dataclass(frozen=True, kw_only=True)
class DistilSettings(TrainingSettings):
    """On-policy distillation: the student's rollouts, how many tokens of the teacher are kept, and the training."""

    k: int = 32
    rollouts: Sampling = field(default_factory=lambda: Sampling(temperature=1.0))
    """At temperature 1 and without top-p: the loss is an expectation over the student's own distribution."""

    def stage(
        self, *, model: Model, data: Stage, anchor: Model, post: Model, pre: Model, weight: float, seed: int
    ) -> Distil:
        """Return the distillation of an `anchor` tuned by a pair into `model`, on the texts of `data`."""
        read = {"data": data, "max_length": self.max_length, "k": self.k}
        teacher = TopLogprobs(model=anchor, post=post, pre=pre, weight=weight, **read)
        trained = {item.name: getattr(self, item.name) for item in fields(TrainingSettings)}
        return Distil(model=model, data=data, teacher=teacher, seed=seed, **trained)


@dataclass(frozen=True, kw_only=True)
class CandidateSettings:
    """How many responses to a prompt a model draws for its own preference pairs, and how."""

    samples: int
    sampling: Sampling


@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings:
    """Contrastive decoding of a weak pair, but for alpha."""

    sampling: Sampling
    pruning_threshold: float = 0.1
    scores: Literal["formula", "official"] = "formula"

    def stage(
        self, *, post: Model, pre: Model, prompts: Stage, alpha: float, max_new_tokens: int, seed: int
    ) -> ContrastiveGenerate:
        return ContrastiveGenerate(
            post=post,
            pre=pre,
            prompts=prompts,
            alpha=alpha,
            max_new_tokens=max_new_tokens,
            seed=self.sampling.seed(seed),
            **vars(self),
        )


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """Proxy tuning of a strong model by a weak pair, but for the weight."""

    sampling: Sampling

    def stage(
        self, *, anchor: Model, post: Model, pre: Model, prompts: Stage, weight: float, max_new_tokens: int, seed: int
    ) -> ProxyGenerate:
        return ProxyGenerate(
            anchor=anchor,
            post=post,
            pre=pre,
            prompts=prompts,
            weight=weight,
            max_new_tokens=max_new_tokens,
            seed=self.sampling.seed(seed),
            **vars(self),
        )


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """The downstream tasks, where they come from (None: lm_eval's own), and whether they are asked as a chat."""

    tasks: tuple[Task, ...]
    source: WorldTasks | TaskFolder | None = None
    chat: bool = False

    def stage(self, *, model: Model) -> Downstream:
        return Downstream(model=model, **vars(self))
