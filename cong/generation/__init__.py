"""Stages that make and judge text: decode, score, pair.

responses = ContrastiveGenerate(post=weak_aligned, pre=weak, prompts=prompts, alpha=0.4, max_new_tokens=64)
pairs = PreferencePairs(chosen=responses, rejected=Generate(model=student, prompts=prompts, max_new_tokens=64))
"""

from cong.generation.pairs import BestAgainstWorst, PairAgreement, PreferencePairs
from cong.generation.score import ExactReward, ImplicitReward, Judge, RewardModel, Score
from cong.generation.stages import ContrastiveGenerate, Generate, Sampling

__all__ = [
    "BestAgainstWorst",
    "ContrastiveGenerate",
    "ExactReward",
    "Generate",
    "ImplicitReward",
    "Judge",
    "PairAgreement",
    "PreferencePairs",
    "RewardModel",
    "Sampling",
    "Score",
]
