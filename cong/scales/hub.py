"""What scales of published models take from the hub alike: checkpoints at a commit, and the benchmarks of a domain."""

from collections.abc import Mapping

from cong.data.benchmarks import GSM8K, HUMANEVAL, MATH, MBPP, BenchmarkPrompts
from cong.errors import UserError
from cong.graph.stage import Stage
from cong.models import HubModel
from cong.scoring import AnswerMatch, Reward, UnitTests

Checkpoints = Mapping[tuple[str, str], tuple[str, str]]
"""(family, size) to repository and commit."""
ULTRAFEEDBACK = ("HuggingFaceH4/ultrafeedback_binarized", "3949bf5f8c17c394422ccfab0c31ea9c20bdeb85")
BENCHMARKS = ("math", "gsm8k", "code", "mbpp")
"""Domains whose answers are right or wrong."""


def checkpoint(known: Checkpoints, family: str, size: str, *, owner: str) -> HubModel:
    """Return a model; raise `UserError`, which names the `owner` of the checkpoints, when it has none such."""
    if (family, size) not in known:
        names = ", ".join(f"{one}-{other}" for one, other in known)
        raise UserError(f"{owner} has no model {family}-{size}: it has {names}")
    repo, revision = known[family, size]
    return HubModel(repo=repo, revision=revision)


def benchmark_data(domain: str) -> tuple[Stage, Stage, Reward]:
    """Return training prompts, held-out prompts and reward of a domain; raise `UserError` for an unknown one."""
    # The paper trains on the benchmarks' own training prompts; CodeDPO, its pairs for code, has no pinned source here.
    known = {
        "gsm8k": (GSM8K, GSM8K, AnswerMatch()),
        "math": (MATH, MATH, AnswerMatch()),
        "mbpp": (MBPP, MBPP, UnitTests()),
        "code": (MBPP, HUMANEVAL, UnitTests()),
    }
    if domain not in known:
        raise UserError(f"unknown domain {domain!r}: known are chat, {', '.join(known)}")
    learned, tested, reward = known[domain]
    prompts, heldout = (
        BenchmarkPrompts(benchmark=learned, split="train"),
        BenchmarkPrompts(benchmark=tested, split="test"),
    )
    return prompts, heldout, reward
