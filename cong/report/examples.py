"""Responses of several models to the same few prompts, side by side."""

from cong.evaluation import EVALUATION
from cong.experiment import Result
from cong.report.blocks import Responses


def side_by_side(results: dict[str, Result], *, count: int, title: str, caption: str) -> Responses:
    """Return `count` prompts, spread over those that every result has, with each model's response and its reward."""
    rows = {name: {row["prompt_id"]: row for row in result.rows(EVALUATION)} for name, result in results.items()}
    shared = sorted(set.intersection(*(set(found) for found in rows.values())))
    first = next(iter(rows.values()))
    prompts = [
        (first[prompt_id]["prompt"], {name: _text(found[prompt_id]) for name, found in rows.items()})
        for prompt_id in shared[:: max(len(shared) // count, 1)][:count]
    ]
    return Responses(title=title, prompts=prompts, caption=caption)


def _text(row: dict) -> str:
    return f"{row['response']}  ({row['reward']:.2f})"
