"""The order of the rows in a training: one list, a function of the stage's fields and of the number of rows.

Each optimizer step reads `global_batch_size` consecutive entries: the same rows form the same step whatever the number
of workers and the size of micro-batches (`cong.training.blocks`).

    >>> order = row_order(lengths=[5, 3, 4], epochs=1, global_batch_size=2, seed=0)
    >>> len(order), set(order) == {0, 1, 2}
    (4, True)
"""

import random
from collections.abc import Sequence


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
