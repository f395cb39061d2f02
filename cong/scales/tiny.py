"""The tiny scale: the synthetic worlds, on a CPU, in minutes."""

from collections.abc import Callable
from typing import cast, get_args

from cong.errors import UserError
from cong.evaluation import WORLD_TASKS
from cong.evaluation.contests import Contest
from cong.evaluation.judging import ExactComparison, NoisyComparison
from cong.generation import Sampling
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
    Steps,
    TaskSettings,
    WSPOSettings,
)
from cong.scales.settings import Scale
from cong.scoring import AnswerMatch, ExactReward, UnitTests
from cong.synthetic.code_world import CodeWorld
from cong.synthetic.domain import Domain
from cong.synthetic.math_world import MathWorld
from cong.synthetic.models import Size
from cong.synthetic.stages import BuildTokenizer, Pretrain, SyntheticPrompts
from cong.synthetic.tasks import WorldTasks
from cong.synthetic.tokenizer import Family
from cong.synthetic.world import World


def tiny_scale(domain: str = "chat") -> Scale:
    world, reward = _tiny_world(domain), _tiny_reward(domain)
    # A response in code takes a process to judge.
    count, tokens = (512, 72) if domain == "code" else (1024, 48)
    # Where answers are right or wrong many prompts give no pair: more epochs bring as many steps as in chat.
    alignment_epochs = {"math": 2, "code": 4}.get(domain, 1)
    diverse = Sampling(temperature=0.8, top_p=0.95)
    steps: Steps = {"global_batch_size": 32, "max_length": 128}
    stage_one = SFTSettings(learning_rate=5e-4, epochs=2, **steps)
    return Scale(
        name="tiny",
        model=lambda family, size, seed: _pretrained(family, size, seed, world=world(seed)),
        # Every seed is a world of its own: other knowledge, models, prompts and samples.
        prompts=lambda seed: SyntheticPrompts(world=world(seed), split="train", count=count, seed=seed),
        heldout=lambda seed: SyntheticPrompts(world=world(seed), split="heldout", count=256, seed=seed),
        reward=reward,
        contests=lambda seed: _tiny_contests(seed, ExactComparison(world=World(seed=seed))),
        # Its error is what one missing item of four costs; ten words more make up for such an item.
        second_contests=lambda seed: _tiny_contests(
            seed, NoisyComparison(world=World(seed=seed), noise=0.5, per_word=0.05)
        ),
        domains=("math", "code"),
        in_domain=tiny_scale,
        alpha={"qwen": 0.4, "llama": 0.4},
        sizes={"qwen": ("3B", "7B"), "llama": ("3B", "7B")},
        ladder={family: get_args(Size) for family in ("qwen", "llama")},
        max_new_tokens=tokens,
        candidates=CandidateSettings(samples=5, sampling=diverse),
        alignment=AlignmentSettings(beta=0.1, learning_rate=1.5e-4, epochs=alignment_epochs, **steps),
        contrastive=ContrastiveSettings(sampling=Sampling()),
        proxy=ProxySettings(sampling=Sampling()),
        weak_sft=stage_one,
        sft=stage_one,
        orpo=ORPOSettings(weight=0.5, learning_rate=1.5e-4, **steps),
        simpo=SimPOSettings(beta=2.0, gamma=0.5, learning_rate=1.5e-4, **steps),
        aux_conf=AuxConfSettings(learning_rate=5e-4, epochs=2, **steps),
        wspo=WSPOSettings(beta=0.1, learning_rate=5e-4, **steps),
        distil=DistilSettings(learning_rate=1.5e-4, epochs=2, **steps),
        # Some tens of steps have to carry the members' weights as far as ten thousand do in the paper.
        committee_rate=0.2,
        rejected=diverse,
        dpo=DPOSettings(learning_rate=5e-5, **steps),
        tasks=lambda seed: TaskSettings(
            tasks=WORLD_TASKS if domain == "chat" else (),
            source=WorldTasks(world=World(seed=seed), count=256, seed=seed),
            chat=True,
        ),
    )


def _tiny_contests(seed: int, judge: ExactComparison | NoisyComparison) -> tuple[Contest, ...]:
    heldout = SyntheticPrompts(world=World(seed=seed), split="heldout", count=256, seed=seed)
    return (Contest(name="against Base", prompts=heldout, judge=judge),)


def _tiny_world(domain: str) -> Callable[[int], World | MathWorld | CodeWorld]:
    worlds = {"chat": World, "math": MathWorld, "code": CodeWorld}
    if domain not in worlds:
        raise UserError(f"unknown domain {domain!r}: known are {', '.join(worlds)}")
    return lambda seed: worlds[domain](seed=seed)


def _tiny_reward(domain: str) -> Callable[[int], ExactReward | AnswerMatch | UnitTests]:
    if domain == "chat":
        return lambda seed: ExactReward(world=World(seed=seed))
    checked = AnswerMatch() if domain == "math" else UnitTests(cpu_seconds=1, memory_bytes=256 << 20)
    return lambda seed: checked


def _pretrained(family: str, size: str, seed: int, *, world: Domain) -> Pretrain:
    families, sizes = get_args(Family), get_args(Size)
    if family not in families or size not in sizes:
        known = f"families are {', '.join(families)}, sizes {', '.join(sizes)}"
        raise UserError(f"there is no tiny model {family}-{size}: {known}")
    style = cast(Family, family)
    return Pretrain(
        world=world,
        family=style,
        size=cast(Size, size),
        tokenizer=BuildTokenizer(world=world, family=style),
        steps=400,
        batch_documents=64,
        # At the rate of the others the largest ends up no better than the next smaller one.
        learning_rate=3e-3 if size == "14B" else 6e-3,
        seed=seed,
    )
