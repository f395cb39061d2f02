"""Rewards of responses, and pairs of responses made from them.

pairs = BestAgainstWorst(scored=Score(responses=candidates, judge=RewardModel(model=model)))
"""

from cong.scoring.pairs import BestAgainstWorst, ConfidentPairs, PairAgreement, PreferencePairs
from cong.scoring.rewards import AnswerMatch, ExactReward, ImplicitReward, Judge, Likelihood, RewardModel, UnitTests
from cong.scoring.score import Score

__all__ = [
    "AnswerMatch",
    "BestAgainstWorst",
    "ConfidentPairs",
    "ExactReward",
    "ImplicitReward",
    "Judge",
    "Likelihood",
    "PairAgreement",
    "PreferencePairs",
    "RewardModel",
    "Score",
    "UnitTests",
]
