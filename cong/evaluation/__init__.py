"""Evaluation on held-out prompts: rewards with bootstrap errors, and judges that compare with a baseline."""

from cong.evaluation.compare import COMPARISONS, Compare, ResponseFile
from cong.evaluation.evaluate import EVALUATION, Evaluate, bootstrap
from cong.evaluation.judging import AlpacaEval2, ArenaHardJudge, ExactComparison

__all__ = [
    "COMPARISONS",
    "EVALUATION",
    "AlpacaEval2",
    "ArenaHardJudge",
    "Compare",
    "Evaluate",
    "ExactComparison",
    "ResponseFile",
    "bootstrap",
]
