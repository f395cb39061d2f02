"""The methods: each row of the paper's tables is a function of a few lines from a transition to a model.

    t = transition("qwen", weak="3B", strong="7B", scale=scale("tiny"))
    model = cong(t, alpha=0.4, beta=0.5)

Methods that share a stage share its result.
"""

import dataclasses
from typing import Any, Literal

from cong.methods.transitions import Transition, onward, transition
from cong.models import Model
from cong.scales import Scale
from cong.scoring import (
    BestAgainstWorst,
    ConfidentPairs,
    Likelihood,
    PairAgreement,
    PreferencePairs,
    Reward,
    Score,
)
from cong.training import DPO, ORPO, SFT, WSPO, AuxConf, SimPO

JudgeOfPairs = Literal["student", "weak pair"]


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
    return t.scale.weak_sft.stage(model=t.strong, data=t.respond(t.weak), seed=t.seed)


def weak_sft_post(t: Transition) -> SFT:
    """Weak SFT (post): the strong model on responses of the post-alignment weak model."""
    return t.scale.weak_sft.stage(model=t.strong, data=t.respond(t.weak_aligned), seed=t.seed)


def weak_teacher(t: Transition) -> DPO:
    """WeakTeacher (Tao & Li, 2025): the weak pair's implicit reward labels the strong model's own candidates."""
    pairs = BestAgainstWorst(scored=Score(responses=t.candidates(t.strong), judge=t.implicit))
    return t.scale.alignment.stage(model=t.strong, data=pairs, seed=t.seed)


def aux_conf(t: Transition) -> AuxConf:
    """AuxConf (Burns et al., 2024): Weak SFT (pre) with the auxiliary confidence loss."""
    return t.scale.aux_conf.stage(model=t.strong, data=t.respond(t.weak), seed=t.seed)


def wspo(t: Transition) -> WSPO:
    """WSPO (Zhu et al., 2025): match the weak pair's log-ratio, on samples of the weak model (appendix C.2).

    Token by token where both models have one tokenizer; across tokenizers, sums over the response.
    """
    return t.scale.wspo.stage(
        model=t.strong,
        data=t.respond(t.weak, sampling=t.scale.rejected),
        post=t.weak_aligned,
        pre=t.weak,
        matching="tokens" if t.same_tokenizer else "sequence",
        seed=t.seed,
    )


def dpo(t: Transition) -> DPO:
    """DPO of the weak model on its own candidates, best against worst (appendix C.2): what makes it pi_r^w."""
    return t.scale.alignment.stage(model=t.weak, data=t.weak_pairs, seed=t.seed)


def orpo(t: Transition, *, weight: float | None = None) -> ORPO:
    """ORPO (Hong et al., 2024) of the weak model on the pairs of its alignment; None takes the scale's weight."""
    settings = dataclasses.replace(t.scale.orpo, **_given(weight=weight))
    return settings.stage(model=t.weak, data=t.weak_pairs, seed=t.seed)


def simpo(t: Transition, *, beta: float | None = None, gamma: float | None = None) -> SimPO:
    """SimPO (Meng et al., 2024) of the weak model on the pairs of its alignment; None takes the scale's values."""
    settings = dataclasses.replace(t.scale.simpo, **_given(beta=beta, gamma=gamma))
    return settings.stage(model=t.weak, data=t.weak_pairs, seed=t.seed)


def _given(**values: float | None) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def cong_s(t: Transition, *, alpha: float) -> SFT:
    """ConG-S, Stage I: SFT on contrastive responses of the weak pair (Eq. 11)."""
    return t.scale.sft.stage(model=t.strong, data=t.contrast(t.prompts, alpha=alpha), seed=t.seed)


def cong_pairs(t: Transition, *, alpha: float) -> PreferencePairs:
    """The pairs of Stage II: contrastive responses against samples of the ConG-S model."""
    student = cong_s(t, alpha=alpha)
    return PreferencePairs(chosen=student.data, rejected=t.respond(student, sampling=t.scale.rejected))


def cong(t: Transition, *, alpha: float, beta: float) -> DPO:
    """ConG, Stage II: DPO of the ConG-S model, which is also the reference policy (Eq. 12)."""
    pairs = cong_pairs(t, alpha=alpha)
    return t.scale.dpo.stage(model=cong_s(t, alpha=alpha), data=pairs, beta=beta, seed=t.seed)


def safe_cong(
    t: Transition, *, alpha: float, beta: float, margin: float = 0.0, by: JudgeOfPairs = "student", swap: bool = False
) -> DPO:
    """Safe Stage II: ConG on those pairs alone in which a judge prefers the chosen response by the margin."""
    pairs = confident_pairs(t, alpha=alpha, margin=margin, by=by, swap=swap)
    return t.scale.dpo.stage(model=cong_s(t, alpha=alpha), data=pairs, beta=beta, seed=t.seed)


def confident_pairs(
    t: Transition, *, alpha: float, margin: float = 0.0, by: JudgeOfPairs = "student", swap: bool = False
) -> ConfidentPairs:
    """The pairs of Stage II that the ConG-S model's likelihood, or the weak pair's implicit reward, is sure of."""
    pairs = cong_pairs(t, alpha=alpha)
    judges: dict[str, Reward] = {"student": Likelihood(model=cong_s(t, alpha=alpha)), "weak pair": t.implicit}
    return ConfidentPairs(pairs=pairs, **_sides(pairs, judges[by]), margin=margin, swap=swap)


def pair_agreement(
    t: Transition, *, alpha: float, explicit: bool, pairs: ConfidentPairs | None = None
) -> PairAgreement:
    """How often the chosen response of Stage II beats the rejected one, by explicit or by implicit reward."""
    every, judge = cong_pairs(t, alpha=alpha), t.reward if explicit else t.implicit
    return PairAgreement(pairs=pairs or every, **_sides(every, judge))


def _sides(pairs: PreferencePairs, judge: Reward) -> dict[str, Score]:
    return {side: Score(responses=getattr(pairs, side), judge=judge) for side in ("chosen", "rejected")}
