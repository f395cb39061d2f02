"""Evaluation on held-out prompts: mean reward, win rate, length and implicit reward, with bootstrap errors."""

from cong.evaluation.evaluate import EVALUATION, Evaluate, bootstrap

__all__ = ["EVALUATION", "Evaluate", "bootstrap"]
