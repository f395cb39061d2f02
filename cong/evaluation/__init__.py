"""Evaluation on held-out prompts: rewards with bootstrap errors, judges of pairs, and tasks of lm_eval."""

from cong.evaluation.arena_table import ARENA_HARD_TABLE, ArenaHardTable
from cong.evaluation.compare import COMPARISONS, Compare, ResponseFile
from cong.evaluation.downstream import PAPER_TASKS, WORLD_TASKS, Downstream, Task, TaskFolder
from cong.evaluation.evaluate import EVALUATION, Evaluate, bootstrap
from cong.evaluation.evaluation import Evaluation
from cong.evaluation.judging import AlpacaEval2, ArenaHardJudge, ExactComparison, NoisyComparison

__all__ = [
    "ARENA_HARD_TABLE",
    "COMPARISONS",
    "EVALUATION",
    "PAPER_TASKS",
    "WORLD_TASKS",
    "AlpacaEval2",
    "ArenaHardJudge",
    "ArenaHardTable",
    "Compare",
    "Downstream",
    "Evaluate",
    "Evaluation",
    "ExactComparison",
    "NoisyComparison",
    "ResponseFile",
    "Task",
    "TaskFolder",
    "bootstrap",
]
