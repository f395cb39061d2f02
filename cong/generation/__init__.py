"""Stages that make and judge text: decode, score, pair.

responses = ContrastiveGenerate(post=weak_aligned, pre=weak, prompts=prompts, alpha=0.4, max_new_tokens=64)
pairs = PreferencePairs(chosen=responses, rejected=Generate(model=student, prompts=prompts, max_new_tokens=64))
"""

from cong.generation.judges import (
    AnswerMatch,
    ExactReward,
    ImplicitReward,
    Judge,
    Likelihood,
    RewardModel,
    UnitTests,
)
from cong.generation.pairs import BestAgainstWorst, ConfidentPairs, PairAgreement, PreferencePairs
from cong.generation.score import Score
from cong.generation.stages import ContrastiveGenerate, Generate, Sampling

__all__ = [
    "AnswerMatch",
    "BestAgainstWorst",
    "ConfidentPairs",
    "ContrastiveGenerate",
    "ExactReward",
    "Generate",
    "ImplicitReward",
    "Judge",
    "Likelihood",
    "PairAgreement",
    "PreferencePairs",
    "RewardModel",
    "Sampling",
    "Score",
    "UnitTests",
]
