"""Ceilings, controls, and methods of other papers that hold the same models, prompts and rewards.

t = transition("qwen", weak="1.5B", strong="14B", scale=scale("tiny"))
student, top = cw_po(t), ceiling(t)            # cong.report.recovery says what share of the gap is recovered
"""

from cong.graph.stage import Stage
from cong.methods.rows import cong_pairs, cong_s, weak_sft_post, weak_teacher
from cong.methods.transitions import Transition, onward, transition
from cong.scales import Scale
from cong.scoring import (
    AgreementByWeight,
    BestAgainstWorst,
    BestOfN,
    Score,
    WeighedPairs,
)
from cong.training import DPO, SFT, Extrapolated


def ceiling(t: Transition) -> DPO:
    """The strong model with the true reward: DPO on its own candidates, best against worst, as the weak is aligned."""
    pairs = BestAgainstWorst(scored=Score(responses=t.candidates(t.strong), judge=t.reward))
    return t.scale.alignment.stage(model=t.strong, data=pairs, seed=t.seed)


def ceiling_sft(t: Transition) -> SFT:
    """A second ceiling: SFT of the strong model on the best of its own candidates by the true reward."""
    scored = Score(responses=t.candidates(t.strong), judge=t.reward)
    best = BestOfN(scored=scored, n=t.scale.candidates.samples)
    return t.scale.sft.stage(model=t.strong, data=best, seed=t.seed)


def best_of(
    t: Transition, *, n: int, drawn: int | None = None, prompts: Stage | None = None, explicit: bool = False
) -> BestOfN:
    """The best of n samples of the aligned weak model by the weak pair's implicit reward, or by the explicit one.

    Weak-to-strong search (Zhou et al., 2024, arXiv:2405.19262) with one beam and whole responses chooses so among
    samples of the strong model. `drawn` samples are made, of which the first n count: several n share them. None takes
    n, and the training prompts.
    """
    given, sampling = prompts or t.prompts, t.scale.candidates.sampling
    samples = t.generate(t.weak_aligned, given, sampling=sampling, samples=drawn or n)
    return BestOfN(scored=Score(responses=samples, judge=t.reward if explicit else t.implicit), n=n)


def best_of_sft(t: Transition, *, n: int | None = None) -> SFT:
    """SFT on the best of n samples of the aligned weak model by the implicit reward: the control of ConG-S.

    None takes as many samples as there are candidates.
    """
    best = best_of(t, n=n or t.scale.candidates.samples)
    return t.scale.sft.stage(model=t.strong, data=best, seed=t.seed)


def bootstrapped(family: str, *, sizes: tuple[str, ...], scale: Scale, seed: int = 0) -> SFT:
    """Bootstrapping (Burns et al., 2023, section 4.3.1): each size of a path is trained on responses of the one before.

    It begins with the aligned weak model; along two sizes it is Weak SFT (post).
    """
    t = transition(family, weak=sizes[0], strong=sizes[1], scale=scale, seed=seed)
    for size in sizes[2:]:
        t = onward(t, weak_sft_post(t), strong=scale.model(family, size, seed))
    return weak_sft_post(t)


def cw_po(t: Transition) -> DPO:
    """CW-PO (arXiv:2603.04968): DPO on WeakTeacher's pairs, each weighed by the weak pair's confidence in it.

    The weight is 2 (sigmoid(r(chosen) - r(rejected)) - 1/2), r the alignment's beta times the implicit reward.
    """
    return t.scale.alignment.stage(model=t.strong, data=_weighed(t), seed=t.seed, weighted=True)


def _weighed(t: Transition) -> WeighedPairs:
    return WeighedPairs(pairs=weak_teacher(t).data, beta=t.scale.alignment.beta)


def cw_cong(t: Transition, *, alpha: float, beta: float, swap: bool = False) -> DPO:
    """ConG whose Stage II weighs its pairs by the weak pair's confidence in them, as CW-PO does.

    A pair that the weak pair would have the other way round has weight 0; with `swap` it is turned. `beta` is that of
    the training; weights take the alignment's.
    """
    data = cw_pairs(t, alpha=alpha, swap=swap)
    return t.scale.dpo.stage(model=cong_s(t, alpha=alpha), data=data, beta=beta, seed=t.seed, weighted=True)


def cw_pairs(t: Transition, *, alpha: float, swap: bool = False) -> WeighedPairs:
    """The pairs of Stage II with the weak pair's confidence in them."""
    pairs = cong_pairs(t, alpha=alpha)
    chosen, rejected = (Score(responses=side, judge=t.implicit) for side in (pairs.chosen, pairs.rejected))
    return WeighedPairs(pairs=pairs, beta=t.scale.alignment.beta, chosen=chosen, rejected=rejected, swap=swap)


def weight_agreement(t: Transition, *, alpha: float | None = None) -> AgreementByWeight:
    """How often the true reward prefers the chosen response, by weight: of CW-PO's pairs, or with alpha of Stage II's.

    Where the share does not rise with the weight, weighing cannot help.
    """
    if alpha is None:
        pairs, sides = _weighed(t), (t.candidates(t.strong),)
    else:
        both = cong_pairs(t, alpha=alpha)
        pairs, sides = cw_pairs(t, alpha=alpha), (both.chosen, both.rejected)
    return AgreementByWeight(pairs=pairs, scored=tuple(Score(responses=side, judge=t.reward) for side in sides))


def expo(t: Transition, *, step: float = 0.5, aligned: DPO | None = None) -> Extrapolated:
    """ExPO (Zheng et al., 2024, arXiv:2404.16792): the weights of a DPO moved on, away from where it began.

    theta_dpo + step (theta_dpo - theta_sft); None takes WeakTeacher, any other such as `cong(t, ...)` its own start.
    """
    after = aligned or weak_teacher(t)
    return Extrapolated(model=after, start=after.model, step=step)
