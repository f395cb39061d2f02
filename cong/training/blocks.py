"""What one forward pass of a worker takes: the rows of an optimizer step in blocks of at most so many tokens.

Every step is cut into the same number of blocks, since all workers must take part in each pass; the rows of a step are
spread over them so that they are about equally long. Losses are sums over the rows of a step, so how it is cut changes
none of them.

    >>> blocks = cut([5, 4, 3, 3], step=2, workers=1, most=8)
    >>> blocks.rows, blocks.accumulation
    (((0,), (1,), (2,), (3,)), 2)
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Rows of the micro-batches, in the order of training: step by step, pass by pass, worker by worker."""

    rows: tuple[tuple[int, ...], ...]
    accumulation: int
    """Micro-batches of each worker that a step adds up."""
    rows_per_step: int


def cut(tokens: Sequence[int], *, step: int, workers: int, most: int) -> Blocks:
    """Cut rows of so many tokens, `step` of which form a step, into the fewest passes of about `most` tokens.

    Blocks are larger where a row is, and where even one row in each would leave some over. `step` is at least the
    number of workers.
    """
    steps = [range(start, start + step) for start in range(0, len(tokens), step)]
    most = max(most, max(tokens))
    fewest = max(-(-sum(tokens[row] for row in rows) // (workers * most)) for rows in steps)
    limit = step // workers
    for passes in range(min(fewest, limit), limit + 1):
        blocks = [block for rows in steps for block in _spread(rows, tokens, blocks=passes * workers)]
        if max(sum(tokens[row] for row in block) for block in blocks) <= most:
            break
    return Blocks(rows=tuple(map(tuple, blocks)), accumulation=passes, rows_per_step=step)


def _spread(rows: range, tokens: Sequence[int], *, blocks: int) -> list[list[int]]:
    """Give each row, the longest first, to the block that has the fewest tokens: none is empty, if there are enough."""
    heap = [(0, block) for block in range(blocks)]
    parts: list[list[int]] = [[] for _ in range(blocks)]
    for row in sorted(rows, key=lambda row: (-tokens[row], row)):
        total, block = heapq.heappop(heap)
        parts[block].append(row)
        heapq.heappush(heap, (total + tokens[row], block))
    return parts


def neighbours(tokens: Sequence[int], *, most: int, padded: bool = False) -> list[range]:
    """Cut neighbouring rows into batches of at most `most` tokens; a longer row is a batch of its own.

    With `padded` the rows must be of rising length, and each counts as much as the longest of its batch.
    """
    batches, start, total = [], 0, 0
    for row, count in enumerate(tokens):
        larger = (row - start + 1) * count if padded else total + count
        if row > start and larger > most:
            batches.append(range(start, row))
            start, larger = row, count
        total = larger
    return [*batches, range(start, len(tokens))] if tokens else []


@dataclass(frozen=True, kw_only=True)
class BlockRows:
    """A dataset of blocks: each item is a list of rows of `rows`."""

    rows: Any
    blocks: Blocks

    def __len__(self) -> int:
        return len(self.blocks.rows)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        columns = self.rows[list(self.blocks.rows[index])]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@dataclass(frozen=True)
class BlockCollator:
    """Collates the rows of the only block of a micro-batch."""

    collate: Callable[[Any], dict[str, Any]]

    def __call__(self, blocks: list[list[dict[str, Any]]]) -> dict[str, Any]:
        (rows,) = blocks
        return self.collate(rows)
