"""The methods: each row of the paper's tables is a function of a few lines from a transition to a model.

    t = transition("qwen", weak="3B", strong="7B", scale=scale("tiny"))
    model = cong(t, alpha=0.4, beta=0.5)

A transition gives every method the same models, prompts and settings; methods that share a stage share its result.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from cong.contests import Contest
from cong.evaluation import Compare, Downstream, Evaluate
from cong.generation import (
    BestAgainstWorst,
    ConfidentPairs,
    ContrastiveGenerate,
    Generate,
    ImplicitReward,
    Judge,
    Likelihood,
    PairAgreement,
    PreferencePairs,
    Sampling,
    Score,
)
from cong.graph.stage import Stage
from cong.models import Model
from cong.prompts import Subset
from cong.scales import Scale
from cong.training import DPO, ORPO, SFT, WSPO, AuxConf, SimPO

GREEDY = Sampling()
JudgeOfPairs = Literal["student", "weak pair"]


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
        return self.aligned or dpo(self)

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


def staged(
    family: str, *, sizes: tuple[str, ...], scale: Scale, beta: float, alphas: tuple[float, ...], seed: int = 0
) -> list[Transition]:
    """The transitions of a path such as 1.5B -> 3B -> 7B, each with ConG of the one before as its weak pair.

    `alphas` are the coefficients of the steps: ConG moves its model further than the first weak model's alignment did.
    """
    path = [transition(family, weak=sizes[0], strong=sizes[1], scale=scale, seed=seed)]
    for size, alpha in zip(sizes[2:], alphas[:-1], strict=True):
        aligned = cong(path[-1], alpha=alpha, beta=beta)
        path.append(onward(path[-1], aligned, strong=scale.model(family, size, seed)))
    return path


def base(t: Transition) -> Model:
    """The strong model as it is."""
    return t.strong


def weak_sft_pre(t: Transition) -> SFT:
    """Weak SFT (pre): the strong model on responses of the pre-alignment weak model (Burns et al., 2024)."""
    return SFT(model=t.strong, data=t.respond(t.weak), seed=t.seed, **t.scale.weak_sft)


def weak_sft_post(t: Transition) -> SFT:
    """Weak SFT (post): the strong model on responses of the post-alignment weak model."""
    return SFT(model=t.strong, data=t.respond(t.weak_aligned), seed=t.seed, **t.scale.weak_sft)


def weak_teacher(t: Transition) -> DPO:
    """WeakTeacher (Tao & Li, 2025): the weak pair's implicit reward labels the strong model's own candidates."""
    candidates = t.respond(t.strong, **t.scale.candidates)
    pairs = BestAgainstWorst(scored=Score(responses=candidates, judge=t.implicit))
    return DPO(model=t.strong, data=pairs, seed=t.seed, **t.scale.alignment)


def aux_conf(t: Transition) -> AuxConf:
    """AuxConf (Burns et al., 2024): Weak SFT (pre) with the auxiliary confidence loss."""
    return AuxConf(model=t.strong, data=t.respond(t.weak), seed=t.seed, **t.scale.aux_conf)


def wspo(t: Transition) -> WSPO:
    """WSPO (Zhu et al., 2025): match the weak pair's log-ratio, on samples of the weak model (appendix C.2).

    Token by token where both models have one tokenizer; across tokenizers, sums over the response.
    """
    weak = {"data": t.respond(t.weak, **t.scale.rejected), "post": t.weak_aligned, "pre": t.weak}
    matching = "tokens" if t.same_tokenizer else "sequence"
    return WSPO(model=t.strong, matching=matching, seed=t.seed, **weak, **t.scale.wspo)


def dpo(t: Transition) -> DPO:
    """DPO of the weak model on its own candidates, best against worst (appendix C.2): what makes it pi_r^w."""
    return DPO(model=t.weak, data=t.weak_pairs, seed=t.seed, **t.scale.alignment)


def orpo(t: Transition, *, weight: float | None = None) -> ORPO:
    """ORPO (Hong et al., 2024) of the weak model on the pairs of its alignment; None takes the scale's weight."""
    return ORPO(model=t.weak, data=t.weak_pairs, seed=t.seed, **t.scale.orpo | _given(weight=weight))


def simpo(t: Transition, *, beta: float | None = None, gamma: float | None = None) -> SimPO:
    """SimPO (Meng et al., 2024) of the weak model on the pairs of its alignment; None takes the scale's values."""
    settings = t.scale.simpo | _given(beta=beta, gamma=gamma)
    return SimPO(model=t.weak, data=t.weak_pairs, seed=t.seed, **settings)


def _given(**values: float | None) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def cong_s(t: Transition, *, alpha: float) -> SFT:
    """ConG-S, Stage I: SFT on contrastive responses of the weak pair (Eq. 11)."""
    return SFT(model=t.strong, data=t.contrast(t.prompts, alpha=alpha), seed=t.seed, **t.scale.sft)


def cong_pairs(t: Transition, *, alpha: float) -> PreferencePairs:
    """The pairs of Stage II: contrastive responses against samples of the ConG-S model."""
    student = cong_s(t, alpha=alpha)
    return PreferencePairs(chosen=student.data, rejected=t.respond(student, **t.scale.rejected))


def cong(t: Transition, *, alpha: float, beta: float) -> DPO:
    """ConG, Stage II: DPO of the ConG-S model, which is also the reference policy (Eq. 12)."""
    pairs = cong_pairs(t, alpha=alpha)
    return DPO(model=cong_s(t, alpha=alpha), data=pairs, beta=beta, seed=t.seed, **t.scale.dpo)


def safe_cong(
    t: Transition, *, alpha: float, beta: float, margin: float = 0.0, by: JudgeOfPairs = "student", swap: bool = False
) -> DPO:
    """Safe Stage II: ConG on those pairs alone in which a judge prefers the chosen response by the margin."""
    pairs = confident_pairs(t, alpha=alpha, margin=margin, by=by, swap=swap)
    return DPO(model=cong_s(t, alpha=alpha), data=pairs, beta=beta, seed=t.seed, **t.scale.dpo)


def confident_pairs(
    t: Transition, *, alpha: float, margin: float = 0.0, by: JudgeOfPairs = "student", swap: bool = False
) -> ConfidentPairs:
    """The pairs of Stage II that the ConG-S model's likelihood, or the weak pair's implicit reward, is sure of."""
    pairs = cong_pairs(t, alpha=alpha)
    judges: dict[str, Judge] = {"student": Likelihood(model=cong_s(t, alpha=alpha)), "weak pair": t.implicit}
    return ConfidentPairs(pairs=pairs, **_sides(pairs, judges[by]), margin=margin, swap=swap)


def pair_agreement(
    t: Transition, *, alpha: float, explicit: bool, pairs: ConfidentPairs | None = None
) -> PairAgreement:
    """How often the chosen response of Stage II beats the rejected one, by explicit or by implicit reward."""
    every, judge = cong_pairs(t, alpha=alpha), t.judge if explicit else t.implicit
    return PairAgreement(pairs=pairs or every, **_sides(every, judge))


def _sides(pairs: PreferencePairs, judge: Judge) -> dict[str, Score]:
    return {side: Score(responses=getattr(pairs, side), judge=judge) for side in ("chosen", "rejected")}


def alignment_distance(t: Transition) -> Evaluate:
    """How far alignment moved the weak model: `reward` is KL(pi_r || pi_ref) in nats per response, on held-out prompts.

    The divergence is the mean of log pi_r - log pi_ref over samples of pi_r: the implicit reward of plain samples.
    """
    samples = t.generate(t.weak_aligned, t.heldout, sampling=Sampling(temperature=1.0), samples=4)
    score = Score(responses=samples, judge=t.implicit)
    return Evaluate(scored=score, implicit=score)


def heldout_score(t: Transition, model: Model, *, sampling: Sampling, samples: int = 1) -> Score:
    """The rewards of a model's responses to the held-out prompts."""
    responses = t.generate(model, t.heldout, sampling=sampling, samples=samples)
    return Score(responses=responses, judge=t.judge)


def evaluate(t: Transition, model: Model, *, sampled: bool = False) -> Evaluate:
    """A model on the held-out prompts, against the strong model as it is; greedy, or the mean of four samples."""
    sampling, samples = (t.scale.sampled, 4) if sampled else (GREEDY, 1)
    scored, opponent = (heldout_score(t, one, sampling=sampling, samples=samples) for one in (model, base(t)))
    implicit = Score(responses=scored.responses, judge=t.implicit)
    return Evaluate(scored=scored, opponent=opponent, implicit=implicit)


def downstream(t: Transition, model: Model) -> Downstream:
    """A model on the tasks of the scale (table 2): whether alignment costs it what it knew."""
    return Downstream(model=model, tasks=t.scale.tasks, **t.scale.task_settings(t.seed))


def evaluate_contrastive(t: Transition, *, alpha: float, tuning: int | None = None) -> Evaluate:
    """The weak pair's contrastive responses themselves on the held-out prompts (figure 2).

    With `tuning`, on so many training prompts instead: alpha is not tuned on what it is judged by.
    """
    prompts = t.heldout if tuning is None else Subset(prompts=t.prompts, count=tuning)
    responses = t.contrast(prompts, alpha=alpha)
    return Evaluate(scored=Score(responses=responses, judge=t.judge), implicit=responses)


def compete(t: Transition, model: Model, contest: Contest) -> Compare:
    """A model's greedy responses in a benchmark of pairs."""
    baseline = contest.baseline or t.generate(base(t), contest.prompts)
    return Compare(responses=t.generate(model, contest.prompts), baseline=baseline, judge=contest.judge)


def naive_samples(t: Transition) -> Evaluate:
    """Plain samples of the aligned weak model on the held-out prompts: what contrastive decoding is compared with."""
    responses = t.generate(t.weak_aligned, t.heldout, sampling=t.scale.sampled)
    implicit = Score(responses=responses, judge=t.implicit)
    return Evaluate(scored=Score(responses=responses, judge=t.judge), implicit=implicit)
