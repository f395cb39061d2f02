"""What the theory of weak-to-strong generalization speaks of: how far a student leaves its teacher, and what it gains.

t = transition("qwen", weak="1.5B", strong="7B", scale=scale("tiny"))
misfit(t, weak_sft_post(t))                                  # KL(student || weak), in nats
evaluate_trained_on(t, weak_sft_post(t), count=256)          # beside `evaluate`, which is on held-out prompts
weak_sft_post(with_epochs(t, epochs=8))                      # overtraining
"""

import dataclasses

from cong.data.prompts import Subset
from cong.evaluation import Evaluate
from cong.generation import Sampling
from cong.methods.field import ceiling
from cong.methods.transitions import Transition
from cong.models import Model
from cong.scoring import Likelihood, Score, ScoreDifference

BASE, WEAK, WEAK_ALIGNED, CEILING = "Base", "Weak", "Weak (aligned)", "Ceiling"
"""Names of the rows between which a gap is measured."""
SAMPLES = 4


def misfit(t: Transition, model: Model, *, weak: Model | None = None) -> Evaluate:
    """KL(student || weak) on held-out prompts: `reward` in nats per response, `implicit_per_token` per student's token.

    The mean of log pi_student - log pi_weak over samples of the student (Charikar et al., 2024, arXiv:2405.15116;
    as a divergence Mulgund & Pabbaraju, 2025, arXiv:2501.19105). None takes the aligned weak model, which teaches
    Weak SFT (post). Across tokenizers it is of the texts, each as its model's tokenizer cuts them.
    """
    samples = t.generate(model, t.heldout, sampling=Sampling(temperature=1.0), samples=SAMPLES)
    judges = (Likelihood(model=one) for one in (model, weak or t.weak_aligned))
    student, teacher = (Score(responses=samples, judge=judge) for judge in judges)
    gap = ScoreDifference(scored=student, minus=teacher)
    return Evaluate(scored=gap, implicit=gap)


def evaluate_trained_on(t: Transition, model: Model, *, count: int) -> Evaluate:
    """A model's greedy responses to the first `count` training prompts: what it gains where its teacher has spoken."""
    responses = t.generate(model, Subset(prompts=t.prompts, count=count))
    return Evaluate(scored=Score(responses=responses, judge=t.reward))


def with_epochs(t: Transition, *, epochs: int) -> Transition:
    """The same transition with so many epochs of SFT, each number with a schedule of its own."""
    longer = {name: dataclasses.replace(getattr(t.scale, name), epochs=epochs) for name in ("sft", "weak_sft")}
    return dataclasses.replace(t, scale=dataclasses.replace(t.scale, **longer))


def gap_ends(t: Transition) -> dict[str, Model]:
    """The models between which a gap is measured, by the names of their rows: weak, aligned weak, base and ceiling."""
    return {WEAK: t.weak, WEAK_ALIGNED: t.weak_aligned, BASE: t.strong, CEILING: ceiling(t)}
