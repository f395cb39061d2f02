"""Evaluation on held-out prompts: rewards with bootstrap errors, and judges that compare with a baseline."""

from cong.evaluation.arena_table import ARENA_HARD_TABLE, ArenaHardTable
from cong.evaluation.compare import COMPARISONS, Compare, ResponseFile
from cong.evaluation.evaluate import EVALUATION, Evaluate, bootstrap
from cong.evaluation.judging import AlpacaEval2, ArenaHardJudge, ExactComparison, NoisyComparison

__all__ = [
    "ARENA_HARD_TABLE",
    "COMPARISONS",
    "EVALUATION",
    "AlpacaEval2",
    "ArenaHardJudge",
    "ArenaHardTable",
    "Compare",
    "Evaluate",
    "ExactComparison",
    "NoisyComparison",
    "ResponseFile",
    "bootstrap",
]
