"""A transition from a weak to a strong model: what every method is given, the same models, prompts and settings.

t = transition("qwen", weak="3B", strong="7B", scale=scale("tiny"))
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

from cong.errors import UserError
from cong.generation import ContrastiveGenerate, Generate, ProxyGenerate, Sampling
from cong.graph.stage import Stage
from cong.models import Model
from cong.scales import Scale
from cong.scoring import (
    BestAgainstWorst,
    ImplicitReward,
    Reward,
    Score,
)

GREEDY = Sampling()


@dataclass(frozen=True, kw_only=True)
class Transition:
    """From a weak to a strong model: `weak` is pi_ref^w, `weak_aligned` pi_r^w, `strong` pi_ref^s."""

    weak: Model
    strong: Model
    prompts: Stage
    heldout: Stage
    reward: Reward
    scale: Scale
    seed: int = 0
    aligned: Model | None = None
    """pi_r^w where an earlier transition made it; None aligns the weak model by DPO."""
    same_tokenizer: bool = True
    """Whether both models cut text into the same tokens: not so across families."""

    @cached_property
    def weak_aligned(self) -> Model:
        """pi_r^w: the weak model after its alignment."""
        return self.aligned or self.scale.alignment.stage(model=self.weak, data=self.weak_pairs, seed=self.seed)

    @cached_property
    def weak_pairs(self) -> Stage:
        """The weak alignment's pairs: those of the scale, or its own candidates, best against worst by the reward."""
        if self.scale.preferences is not None:
            return self.scale.preferences(self.seed)
        scored = Score(responses=self.candidates(self.weak), judge=self.reward)
        return BestAgainstWorst(scored=scored)

    @property
    def self_aligned(self) -> "Transition":
        """The transition in which the strong model is the weak one: self-alignment."""
        return dataclasses.replace(self, strong=self.weak, same_tokenizer=True)

    def candidates(self, model: Model) -> Generate:
        """A model's own samples, several per training prompt, of which preference pairs are made."""
        drawn = self.scale.candidates
        return self.respond(model, sampling=drawn.sampling, samples=drawn.samples)

    def respond(self, model: Model, *, sampling: Sampling = GREEDY, samples: int = 1) -> Generate:
        """Plain responses of a model to the training prompts."""
        return self.generate(model, self.prompts, sampling=sampling, samples=samples)

    def generate(self, model: Model, prompts: Stage, *, sampling: Sampling = GREEDY, samples: int = 1) -> Generate:
        """Plain responses of a model to prompts."""
        return Generate(
            model=model,
            prompts=prompts,
            max_new_tokens=self.scale.max_new_tokens,
            sampling=sampling,
            samples=samples,
            seed=sampling.seed(self.seed),
        )

    def contrast(self, prompts: Stage, *, alpha: float) -> ContrastiveGenerate:
        """Contrastive responses of the weak pair."""
        return self.scale.contrastive.stage(
            post=self.weak_aligned,
            pre=self.weak,
            prompts=prompts,
            alpha=alpha,
            max_new_tokens=self.scale.max_new_tokens,
            seed=self.seed,
        )

    def proxy(self, prompts: Stage, *, weight: float = 1.0) -> ProxyGenerate:
        """Responses of the strong model that the weak pair tunes while it decodes; `UserError` for two tokenizers."""
        self.check_tokenizer()
        return self.scale.proxy.stage(
            anchor=self.strong,
            post=self.weak_aligned,
            pre=self.weak,
            prompts=prompts,
            weight=weight,
            max_new_tokens=self.scale.max_new_tokens,
            seed=self.seed,
        )

    def check_tokenizer(self) -> None:
        """Raise `UserError` where the two models do not have one tokenizer, for methods that add or compare logits."""
        if not self.same_tokenizer:
            raise UserError("the weak and the strong model have two tokenizers: logits are added token by token")

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
        aligned=scale.aligned(family, weak, seed),
        strong=scale.model(strong_family or family, strong, seed),
        prompts=scale.prompts(seed),
        heldout=scale.heldout(seed),
        reward=scale.reward(seed),
        scale=scale,
        seed=seed,
        same_tokenizer=strong_family in (None, family),
    )


def onward(t: Transition, model: Model, *, strong: Model, same_tokenizer: bool = True) -> Transition:
    """The next transition of a path: the strong model, before and as `model` after, is the weak pair of a stronger."""
    return dataclasses.replace(t, weak=t.strong, aligned=model, strong=strong, same_tokenizer=same_tokenizer)
