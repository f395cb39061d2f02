"""A very small world: the whole method in seconds, on the same code path. Its models learn next to nothing."""

import dataclasses

from cong import methods
from cong.evaluation import ExactComparison, NoisyComparison
from cong.evaluation.contests import Contest
from cong.experiment import Cell
from cong.scales import Scale, scale
from cong.scoring import ExactReward
from cong.synthetic.stages import BuildTokenizer, Pretrain, SyntheticPrompts
from cong.synthetic.world import World

WORLD = World(categories=2, attributes=2)


def small_scale(*, prompts: int = 48, batch: int = 32) -> Scale:
    made = scale("tiny")
    learning = {"learning_rate": 1e-3, "epochs": 1, "global_batch_size": batch}
    return dataclasses.replace(
        made,
        model=small_model,
        prompts=lambda seed: SyntheticPrompts(world=WORLD, split="train", count=prompts, seed=seed),
        heldout=lambda seed: SyntheticPrompts(world=WORLD, split="heldout", count=8),
        reward=lambda seed: ExactReward(world=WORLD),
        contests=lambda seed: _contests(ExactComparison(world=WORLD)),
        second_contests=lambda seed: _contests(NoisyComparison(world=WORLD, noise=0.5, per_word=0.05)),
        max_new_tokens=24,
        alignment=dataclasses.replace(made.alignment, **learning),
        weak_sft=dataclasses.replace(made.weak_sft, **learning),
        sft=dataclasses.replace(made.sft, **learning),
        dpo=dataclasses.replace(made.dpo, **learning),
    )


def _contests(judge: ExactComparison | NoisyComparison) -> tuple[Contest, ...]:
    heldout = SyntheticPrompts(world=WORLD, split="heldout", count=8)
    return (Contest(name="against Base", prompts=heldout, judge=judge),)


def small_model(family: str, size: str, seed: int) -> Pretrain:
    return Pretrain(
        world=WORLD,
        family=family,  # pyright: ignore[reportArgumentType]
        size=size,  # pyright: ignore[reportArgumentType]
        tokenizer=BuildTokenizer(world=WORLD, family=family),  # pyright: ignore[reportArgumentType]
        steps=60,
        batch_documents=16,
        learning_rate=4e-3,
        seed=seed,
    )


def cells(
    given, *, alpha: float = 0.4, beta: float = 0.5, prompts: int = 48, batch: int = 32, weak: bool = False
) -> list[Cell]:
    t = methods.transition("qwen", weak="1.5B", strong="1.5B", scale=small_scale(prompts=prompts, batch=batch))
    if weak:
        apart = dataclasses.replace(t.candidates(t.weak), seed=1)
        return [Cell(stage=stage, axes={"method": stage.name}) for stage in (apart, methods.dpo(t))]
    rows = {
        "Base": methods.base(t),
        "Weak SFT (pre)": methods.weak_sft_pre(t),
        "Weak SFT (post)": methods.weak_sft_post(t),
        "ConG-S": methods.cong_s(t, alpha=alpha),
        "ConG": methods.cong(t, alpha=alpha, beta=beta),
    }
    return [Cell(stage=methods.evaluate(t, model), axes={"method": name}) for name, model in rows.items()]
