"""The order of the rows in a training: one list, a function of the stage's fields and of the number of rows.

Each optimizer step reads `global_batch_size` consecutive entries. Ranks take micro-batches of it in turn, so the same
rows form the same step whatever the number of workers and the micro-batch.

    >>> order = row_order(lengths=[5, 3, 4], epochs=1, global_batch_size=2, seed=0)
    >>> len(order), set(order) == {0, 1, 2}
    (4, True)
"""

import random
from collections.abc import Sequence

from cong.graph.resources import Resources


def accumulation_steps(*, global_batch_size: int, resources: Resources) -> int:
    """Return how many micro-batches each worker adds up for a step; raise `ValueError` when there is a remainder."""
    workers, micro_batch = resources.training.workers, resources.training.micro_batch
    at_once = workers * micro_batch
    if global_batch_size % at_once:
        raise ValueError(
            f"global_batch_size = {global_batch_size} is not a multiple of {at_once} = {workers} worker(s) x "
            f"micro_batch {micro_batch}: choose a micro_batch that divides {global_batch_size / workers:g}"
        )
    return global_batch_size // at_once


def row_order(*, lengths: Sequence[int], epochs: int, global_batch_size: int, seed: int) -> list[int]:
    """Return the row indices of the whole training, a multiple of `global_batch_size` of them.

    An epoch holds every row. Its last step is filled up with rows from the epoch's beginning, so that every step
    averages over equally many. Inside a step rows are sorted by length: its gradient is a sum over its rows, hence
    the same, and micro-batches of like lengths need less padding.
    """
    order: list[int] = []
    for epoch in range(epochs):
        rows = list(range(len(lengths)))
        random.Random(f"{seed}/{epoch}").shuffle(rows)
        missing = -len(rows) % global_batch_size
        rows += (rows * (missing // len(rows) + 1))[:missing]
        for start in range(0, len(rows), global_batch_size):
            step = rows[start : start + global_batch_size]
            order += sorted(step, key=lambda row: (-lengths[row], row))
    return order
