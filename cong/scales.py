"""Scales: the models, prompts, judge and hyper-parameters that an experiment is run with.

`scale("tiny")` is the synthetic world on a CPU; `scale("paper")` the settings of the paper (section 5.1, appendix C.2;
what the paper leaves open is taken from the configuration that its authors published).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from cong.benchmarks import GSM8K, HUMANEVAL, MATH, MBPP, BenchmarkPrompts
from cong.contests import Contest, published_contests
from cong.errors import UserError
from cong.evaluation import PAPER_TASKS, WORLD_TASKS, Task
from cong.evaluation.judging import ExactComparison, NoisyComparison
from cong.generation import AnswerMatch, ExactReward, RewardModel, Sampling, UnitTests
from cong.graph.stage import Stage
from cong.models import HubModel, Model
from cong.prompts import HubPrompts, SyntheticPrompts
from cong.synthetic.code_world import CodeWorld
from cong.synthetic.domain import Domain
from cong.synthetic.math_world import MathWorld
from cong.synthetic.models import Size
from cong.synthetic.stages import BuildTokenizer, Pretrain
from cong.synthetic.tasks import WorldTasks
from cong.synthetic.tokenizer import Family
from cong.synthetic.world import World

Settings = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What the methods are given. Dictionaries are keyword arguments of the stages that they are named after."""

    name: str
    model: Callable[[str, str, int], Model]
    """(family, size, seed) to the pre-alignment model."""
    prompts: Callable[[int], Stage]
    """Seed to the training prompts."""
    heldout: Callable[[int], Stage]
    """Seed to the prompts of the evaluation."""
    judge: Callable[[int], ExactReward | RewardModel | AnswerMatch | UnitTests]
    """Seed to what labels the candidates of the weak alignment, and scores the evaluation."""
    alpha: dict[str, float]
    """Contrastive coefficient per family of the weak pair."""
    sizes: dict[str, tuple[str, str]]
    """Per family the weak and the strong size of the paper's main table."""
    in_domain: Callable[[str], "Scale"]
    """Domain (chat, math, code) to the scale with its prompts, judge and, at tiny scale, models."""
    contests: Callable[[int], tuple[Contest, ...]]
    """Seed to the benchmarks of pairs."""
    second_contests: Callable[[int], tuple[Contest, ...]]
    """The same before another judge."""
    domains: tuple[str, ...]
    """What `in_domain` knows and table 4 has, the domain of the other tables left out."""
    max_new_tokens: int
    candidates: Settings
    alignment: Settings
    contrastive: Settings
    weak_sft: Settings
    sft: Settings
    orpo: Settings
    simpo: Settings
    aux_conf: Settings
    wspo: Settings
    rejected: Settings
    dpo: Settings
    tasks: tuple[Task, ...] = ()
    """Downstream tasks."""
    task_settings: Callable[[int], Settings] = lambda seed: {}
    """Seed to where the tasks come from, and how they are asked: keyword arguments of `Downstream`."""
    gpu: bool = False
    """Whether the models are too large to be run without a GPU."""
    sampled: Sampling = field(default_factory=lambda: Sampling(temperature=0.7, top_p=0.95))
    """How the sampled evaluation draws."""


def scale(name: str) -> Scale:
    """Return a scale by name; raise `UserError` when there is none."""
    makers = {"tiny": _tiny, "paper": _paper}
    if name not in makers:
        raise UserError(f"unknown scale {name!r}: known are {', '.join(makers)}")
    return makers[name]()


def _tiny(domain: str = "chat") -> Scale:
    world, judge = _tiny_world(domain), _tiny_judge(domain)
    # A response in code takes a process to judge.
    count, tokens = (512, 72) if domain == "code" else (1024, 48)
    # Where answers are right or wrong many prompts give no pair: more epochs bring as many steps as in chat.
    alignment_epochs = {"math": 2, "code": 4}.get(domain, 1)
    diverse = Sampling(temperature=0.8, top_p=0.95)
    training = {"global_batch_size": 32, "max_length": 128, "scheduler": "cosine", "warmup_ratio": 0.1}
    return Scale(
        name="tiny",
        model=lambda family, size, seed: _pretrained(family, size, seed, world=world(seed)),
        # Every seed is a world of its own: other knowledge, models, prompts and samples.
        prompts=lambda seed: SyntheticPrompts(world=world(seed), split="train", count=count, seed=seed),
        heldout=lambda seed: SyntheticPrompts(world=world(seed), split="heldout", count=256, seed=seed),
        judge=judge,
        contests=lambda seed: _tiny_contests(seed, ExactComparison(world=World(seed=seed))),
        # Its error is what one missing item of four costs; ten words more make up for such an item.
        second_contests=lambda seed: _tiny_contests(
            seed, NoisyComparison(world=World(seed=seed), noise=0.5, per_word=0.05)
        ),
        domains=("math", "code"),
        in_domain=_tiny,
        alpha={"qwen": 0.4, "llama": 0.4},
        sizes={"qwen": ("3B", "7B"), "llama": ("3B", "7B")},
        max_new_tokens=tokens,
        candidates={"samples": 5, "sampling": diverse},
        alignment={"beta": 0.1, "learning_rate": 1.5e-4, "epochs": alignment_epochs, **training},
        contrastive={"sampling": Sampling()},
        weak_sft={"learning_rate": 5e-4, "epochs": 2, **training},
        sft={"learning_rate": 5e-4, "epochs": 2, **training},
        orpo={"weight": 0.5, "learning_rate": 1.5e-4, "epochs": 1, **training},
        simpo={"beta": 2.0, "gamma": 0.5, "learning_rate": 1.5e-4, "epochs": 1, **training},
        aux_conf={"learning_rate": 5e-4, "epochs": 2, **training},
        wspo={"beta": 0.1, "learning_rate": 5e-4, "epochs": 1, **training},
        rejected={"sampling": diverse},
        dpo={"learning_rate": 5e-5, "epochs": 1, **training},
        tasks=WORLD_TASKS if domain == "chat" else (),
        task_settings=lambda seed: {"source": WorldTasks(world=World(seed=seed), count=256, seed=seed), "chat": True},
    )


def _tiny_contests(seed: int, judge: ExactComparison | NoisyComparison) -> tuple[Contest, ...]:
    heldout = SyntheticPrompts(world=World(seed=seed), split="heldout", count=256, seed=seed)
    return (Contest(name="against Base", prompts=heldout, judge=judge),)


def _tiny_world(domain: str) -> Callable[[int], World | MathWorld | CodeWorld]:
    worlds = {"chat": World, "math": MathWorld, "code": CodeWorld}
    if domain not in worlds:
        raise UserError(f"unknown domain {domain!r}: known are {', '.join(worlds)}")
    return lambda seed: worlds[domain](seed=seed)


def _tiny_judge(domain: str) -> Callable[[int], ExactReward | AnswerMatch | UnitTests]:
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


CHECKPOINTS = {
    ("qwen", "1.5B"): ("Qwen/Qwen2.5-1.5B-Instruct", "989aa7980e4cf806f80c7fef2b1adb7bc71aa306"),
    ("qwen", "3B"): ("Qwen/Qwen2.5-3B-Instruct", "aa8e72537993ba99e69dfaafa59ed015b17504d1"),
    ("qwen", "7B"): ("Qwen/Qwen2.5-7B-Instruct", "a09a35458c702b33eeacc393d103063234e8bc28"),
    ("qwen", "14B"): ("Qwen/Qwen2.5-14B-Instruct", "cf98f3b3bbb457ad9e2bb7baf9a0125b6b88caa8"),
    ("llama", "3B"): ("meta-llama/Llama-3.2-3B-Instruct", "0cb88a4f764b7a12671c53f0838cd831a0843b95"),
    ("llama", "8B"): ("meta-llama/Meta-Llama-3-8B-Instruct", "5f0b02c75b57c5855da9ae460ce51323ea669d8a"),
}
ARMORM = HubModel(
    repo="RLHFlow/ArmoRM-Llama3-8B-v0.1",
    revision="eb2676d20da2f2d41082289d23c59b9f7427f955",
    trust_remote_code=True,  # The model's class with its gating layer lies in the repository.
)
SECOND_JUDGE = "gpt-5-chat-latest"
"""The paper says GPT-5. AlpacaEval 2's verdict takes log-probabilities, so it must be a model that gives them."""
ULTRAFEEDBACK = ("HuggingFaceH4/ultrafeedback_binarized", "3949bf5f8c17c394422ccfab0c31ea9c20bdeb85")


def _paper(domain: str = "chat") -> Scale:
    prompts, heldout, judge = _paper_data(domain)
    diverse = Sampling(temperature=0.8, top_p=0.95)
    training = {"global_batch_size": 64, "max_length": 2048, "scheduler": "cosine", "warmup_ratio": 0.1}
    return Scale(
        name="paper",
        gpu=True,
        model=lambda family, size, seed: _checkpoint(family, size),
        prompts=lambda seed: prompts,
        heldout=lambda seed: heldout,
        judge=lambda seed: judge,
        contests=lambda seed: published_contests(),
        second_contests=lambda seed: published_contests(SECOND_JUDGE),
        domains=("math", "gsm8k", "code", "mbpp"),
        in_domain=_paper,
        alpha={"qwen": 0.5, "llama": 0.4},
        sizes={"qwen": ("3B", "7B"), "llama": ("3B", "8B")},
        max_new_tokens=2048,
        candidates={"samples": 5, "sampling": diverse},
        alignment={"beta": 0.1, "learning_rate": 8e-7, "epochs": 1, **training},
        contrastive={"sampling": Sampling(repetition_penalty=1.2)},
        weak_sft={"learning_rate": 1e-5, "epochs": 1, **training},
        sft={"learning_rate": 1e-5, "epochs": 2, **training},
        # The paper states the ranges that it searched (lambda; beta and gamma), not the learning rates of these two:
        # those are the defaults of ORPO's and SimPO's own papers.
        orpo={"weight": 0.5, "learning_rate": 8e-6, "epochs": 1, **training},
        simpo={"beta": 2.0, "gamma": 1.0, "learning_rate": 1e-6, "epochs": 1, **training},
        aux_conf={"learning_rate": 1e-5, "epochs": 1, **training},
        wspo={"beta": 0.1, "learning_rate": 1e-5, "epochs": 1, **training},
        rejected={"sampling": diverse},
        dpo={"learning_rate": 6e-7, "epochs": 1, **training},
        tasks=PAPER_TASKS,
    )


def _paper_data(domain: str) -> tuple[Stage, Stage, RewardModel | AnswerMatch | UnitTests]:
    """Training prompts, held-out prompts and judge."""
    repo, revision = ULTRAFEEDBACK
    if domain == "chat":
        prompts = HubPrompts(repo=repo, revision=revision, split="train_prefs")
        return (
            prompts,
            HubPrompts(repo=repo, revision=revision, split="test_prefs", count=500),
            RewardModel(model=ARMORM),
        )
    # The paper trains on the benchmarks' own training prompts; CodeDPO, its pairs for code, has no pinned source here.
    known = {
        "gsm8k": (GSM8K, GSM8K, AnswerMatch()),
        "math": (MATH, MATH, AnswerMatch()),
        "mbpp": (MBPP, MBPP, UnitTests()),
        "code": (MBPP, HUMANEVAL, UnitTests()),
    }
    if domain not in known:
        raise UserError(f"unknown domain {domain!r}: known are chat, {', '.join(known)}")
    learned, tested, judge = known[domain]
    prompts, heldout = (
        BenchmarkPrompts(benchmark=learned, split="train"),
        BenchmarkPrompts(benchmark=tested, split="test"),
    )
    return prompts, heldout, judge


def _checkpoint(family: str, size: str) -> HubModel:
    if (family, size) not in CHECKPOINTS:
        known = ", ".join(f"{family}-{size}" for family, size in CHECKPOINTS)
        raise UserError(f"the paper has no model {family}-{size}: it has {known}")
    repo, revision = CHECKPOINTS[family, size]
    return HubModel(repo=repo, revision=revision)
