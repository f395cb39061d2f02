"""A scored row: what is kept of a response, and its reward."""

import math

from cong.data import Row
from cong.data.conversations import MESSAGES
from cong.data.formatting import STOP_TOKEN, TOKENS

KEPT = ("row_id", "prompt_id", "prompt", "sample", "response", "num_tokens", "finish_reason", "error")
SPOKEN = (*KEPT, TOKENS, STOP_TOKEN)
"""Columns from which a response is scored token by token; files of earlier versions, or of others, lack some."""
UNCHECKED = "the prompt has no reference to check a response against"


def scored(row: Row, reward: float | None, *, error: str | None = None) -> Row:
    """Return the columns that are kept of a row, and its reward; one that is infinite or no number is an error."""
    if reward is not None and not math.isfinite(reward):
        reward, error = None, f"the reward is {reward}"
    turns = {MESSAGES: row[MESSAGES]} if row.get(MESSAGES) else {}
    return {**{name: row[name] for name in KEPT}, **turns, "reward": reward, "error": row["error"] or error}
