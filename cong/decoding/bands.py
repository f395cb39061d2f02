"""Rows of like length side by side, so that a step reads few columns of the cache beyond a row's own.

Attention over a batch reads for every row as many columns as the longest row has. So the slots are cut into bands, and
each band is read as far as its own longest row. Long rows are kept in the first bands and short ones in the last:
when slots are refilled, rows move up into the free slots of earlier bands, and new rows, which are short, come last.

    for source, target in moves({0: 80, 2: 60, 3: 20}, slots=4, width=2): ...   # slot 2 moves to slot 1
    bands({0: 80, 1: 60, 3: 20}, rows=4, width=2)                               # (Band(2, 81), Band(2, 21))
"""

from collections.abc import Mapping
from typing import NamedTuple

BANDS = 2
SMALLEST_BAND = 8


class Band(NamedTuple):
    """So many neighbouring rows, and the columns that hold all their tokens."""

    rows: int
    columns: int


def band_width(slots: int) -> int:
    """Return the rows of a band; every band is a call of its own in every layer, so small ones are not worth it."""
    return max(SMALLEST_BAND, -(-slots // BANDS))


def bands(cached: Mapping[int, int], *, rows: int, width: int) -> tuple[Band, ...]:
    """Return the bands of the first `rows` slots, with room for one more token in each row.

    `cached` is the number of tokens in the cache by occupied slot.
    """
    parts = [range(start, min(start + width, rows)) for start in range(0, rows, width)]
    return tuple(Band(len(part), 1 + max(cached.get(slot, 0) for slot in part)) for part in parts)


def moves(cached: Mapping[int, int], *, slots: int, width: int) -> list[tuple[int, int]]:
    """Return (from, to) for the rows that move at once; afterwards only the last occupied band has free slots."""
    left = dict(cached)
    found: list[tuple[int, int]] = []
    for slot in range(slots):
        later = range((slot // width + 1) * width, slots)
        if slot in left or not later:
            continue
        occupied = [(-(other // width), left[other], other) for other in later if other in left]
        if not occupied:
            break
        # The longest row of the next band that has any.
        _, length, source = max(occupied)
        del left[source]
        left[slot] = length
        found.append((source, slot))
    return found
