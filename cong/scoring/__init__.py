"""Rewards of responses, and pairs of responses made from them.

pairs = BestAgainstWorst(scored=Score(responses=candidates, judge=RewardModel(model=model)))
"""

from cong.scoring.best import BestOfN
from cong.scoring.committee import CommitteePairs, MemberAgreement
from cong.scoring.difference import ScoreDifference
from cong.scoring.functions import FunctionReward, reward_from
from cong.scoring.pairs import BestAgainstWorst, ConfidentPairs, PairAgreement, PreferencePairs
from cong.scoring.reward import ModelReward, Reward
from cong.scoring.rewards import AnswerMatch, ExactReward, ImplicitReward, Likelihood, RewardModel, UnitTests
from cong.scoring.score import Score
from cong.scoring.weighed import AgreementByWeight, WeighedPairs

__all__ = [
    "AgreementByWeight",
    "AnswerMatch",
    "BestAgainstWorst",
    "BestOfN",
    "CommitteePairs",
    "ConfidentPairs",
    "ExactReward",
    "FunctionReward",
    "ImplicitReward",
    "Likelihood",
    "MemberAgreement",
    "ModelReward",
    "PairAgreement",
    "PreferencePairs",
    "Reward",
    "RewardModel",
    "Score",
    "ScoreDifference",
    "UnitTests",
    "WeighedPairs",
    "reward_from",
]
