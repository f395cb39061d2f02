"""Judging pairs of responses: what a judge is asked, how it is asked over HTTP, and how its answers are read."""

from cong.evaluation.judging.ask import HttpJudge
from cong.evaluation.judging.client import JudgeClient
from cong.evaluation.judging.judges import AlpacaEval2, ArenaHardJudge
from cong.evaluation.judging.local import ExactComparison, NoisyComparison
from cong.evaluation.judging.pairs import LocalJudge, Pair, PairJudge, Verdict
from cong.evaluation.judging.templates import ALPACA_EVAL_2, ARENA_HARD, ARENA_HARD_CREATIVE, Template

__all__ = [
    "ALPACA_EVAL_2",
    "ARENA_HARD",
    "ARENA_HARD_CREATIVE",
    "AlpacaEval2",
    "ArenaHardJudge",
    "ExactComparison",
    "HttpJudge",
    "JudgeClient",
    "LocalJudge",
    "NoisyComparison",
    "Pair",
    "PairJudge",
    "Template",
    "Verdict",
]
