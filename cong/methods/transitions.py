"""A transition from a weak to a strong model: what every method is given, the same models, prompts and settings.

t = transition("qwen", weak="3B", strong="7B", scale=scale("tiny"))
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

from cong.generation import ContrastiveGenerate, Generate, Sampling
from cong.graph.stage import Stage
from cong.models import Model
from cong.scales import Scale
from cong.scoring import (
    BestAgainstWorst,
    ImplicitReward,
    Judge,
    Score,
)
from cong.training import DPO

GREEDY = Sampling()


@dataclass(frozen=True, kw_only=True)
class Transition:
    """From a weak to a strong model: `weak` is pi_ref^w, `weak_aligned` pi_r^w, `strong` pi_ref^s."""

    weak: Model
    strong: Model
    prompts: Stage
    heldout: Stage
    judge: Judge
    scale: Scale
    seed: int = 0
    aligned: Model | None = None
    """pi_r^w where an earlier transition made it; None aligns the weak model by DPO."""
    same_tokenizer: bool = True
    """Whether both models cut text into the same tokens: not so across families."""

    @cached_property
    def weak_aligned(self) -> Model:
        """pi_r^w: the weak model after its alignment."""
        return self.aligned or DPO(model=self.weak, data=self.weak_pairs, seed=self.seed, **self.scale.alignment)

    @cached_property
    def weak_pairs(self) -> BestAgainstWorst:
        """The weak model's own candidates, best against worst by the judge."""
        candidates = self.respond(self.weak, **self.scale.candidates)
        return BestAgainstWorst(scored=Score(responses=candidates, judge=self.judge))

    @property
    def self_aligned(self) -> "Transition":
        """The transition in which the strong model is the weak one: self-alignment."""
        return dataclasses.replace(self, strong=self.weak, same_tokenizer=True)

    def respond(self, model: Model, **settings) -> Generate:
        """Plain responses of a model to the training prompts; greedy unless a sampling is given."""
        return self.generate(model, self.prompts, **settings)

    def generate(self, model: Model, prompts: Stage, *, sampling: Sampling = GREEDY, samples: int = 1) -> Generate:
        """Plain responses of a model to prompts."""
        return Generate(
            model=model,
            prompts=prompts,
            max_new_tokens=self.scale.max_new_tokens,
            sampling=sampling,
            samples=samples,
            seed=self.draws(sampling),
        )

    def draws(self, sampling: Sampling) -> int:
        """The seed of a decoding; greedy decoding draws nothing, so there every seed shares one stage."""
        return self.seed if sampling.temperature > 0 else 0

    def contrast(self, prompts: Stage, *, alpha: float) -> ContrastiveGenerate:
        """Contrastive responses of the weak pair."""
        return ContrastiveGenerate(
            post=self.weak_aligned,
            pre=self.weak,
            prompts=prompts,
            alpha=alpha,
            max_new_tokens=self.scale.max_new_tokens,
            seed=self.draws(self.scale.contrastive["sampling"]),
            **self.scale.contrastive,
        )

    @property
    def implicit(self) -> ImplicitReward:
        """The implicit reward of the weak pair."""
        return ImplicitReward(post=self.weak_aligned, pre=self.weak)


def transition(
    family: str, *, weak: str, strong: str, scale: Scale, seed: int = 0, strong_family: str | None = None
) -> Transition:
    """Return the transition between two sizes of a family, or from a size of one family to a size of another."""
    return Transition(
        weak=scale.model(family, weak, seed),
        strong=scale.model(strong_family or family, strong, seed),
        prompts=scale.prompts(seed),
        heldout=scale.heldout(seed),
        judge=scale.judge(seed),
        scale=scale,
        seed=seed,
        same_tokenizer=strong_family in (None, family),
    )


def onward(t: Transition, model: Model, *, strong: Model, same_tokenizer: bool = True) -> Transition:
    """The next transition of a path: the strong model, before and as `model` after, is the weak pair of a stronger."""
    return dataclasses.replace(t, weak=t.strong, aligned=model, strong=strong, same_tokenizer=same_tokenizer)
