"""Methods that anchor the weak pair's log-ratio on a model by its logits: proxy tuning, and distillation of it.

    t = transition("qwen", weak="3B", strong="7B", scale=scale("tiny"))
    student = w2s_opd(t, weight=1.0, rounds=2)

ConG anchors the same log-ratio on the weak model. Both models of a transition need one tokenizer.
"""

from typing import Literal

from cong.data.prompts import Share
from cong.evaluation import Evaluate
from cong.methods.transitions import Transition
from cong.models import Model
from cong.scoring import Score
from cong.training import SFT


def evaluate_proxy(t: Transition, *, weight: float = 1.0) -> Evaluate:
    """Proxy tuning itself (Liu et al., 2024, arXiv:2401.08565), without a trained model, on the held-out prompts.

    Implicit rewards are those of the weak pair.
    """
    responses = t.proxy(t.heldout, weight=weight)
    opponent = Score(responses=t.generate(t.strong, t.heldout), judge=t.reward)
    return Evaluate(scored=Score(responses=responses, judge=t.reward), opponent=opponent, implicit=responses)


def proxy_sft(t: Transition, *, weight: float = 1.0) -> SFT:
    """SFT of the strong model on its own responses under proxy tuning: ConG-S with the anchor exchanged."""
    return t.scale.sft.stage(model=t.strong, data=t.proxy(t.prompts, weight=weight), seed=t.seed)


def w2s_opd(
    t: Transition, *, weight: float = 1.0, rounds: int = 2, anchor: Literal["strong", "weak"] = "strong"
) -> Model:
    """W2S-OPD (arXiv:2607.26246): distil q = softmax(z_anchor + w (z_r - z_ref)) on the student's own rollouts.

    Every round has a share of the prompts; within it rollouts grow off-policy. Of the weak anchor, w = 1 is on-policy
    distillation of pi_r, and w = 1 / alpha has the greedy choices of ConG's F."""
    t.check_tokenizer()
    teacher = {"anchor": t.strong if anchor == "strong" else t.weak, "post": t.weak_aligned, "pre": t.weak}
    student = t.strong
    for number in range(rounds):
        prompts = Share(prompts=t.prompts, number=number, of=rounds)
        rollouts = t.generate(student, prompts, sampling=t.scale.distil.rollouts)
        student = t.scale.distil.stage(model=student, data=rollouts, **teacher, weight=weight, seed=t.seed)
    return student
