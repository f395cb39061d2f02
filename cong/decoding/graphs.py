"""Decoding steps as CUDA graphs: a step of a small model is bound by launching its kernels, a replay launches once.

A graph is fixed in shape, so rows and columns are rounded up to buckets; the rows and columns more are inactive and
masked. The first step of a bucket runs as it is (which warms up the libraries), the second one is captured, and
from then on it is replayed. A cache that grows moves its tensors: the graphs are dropped then.

    advance = GraphedSteps(step, slots=256, capture=CudaCapture())
    advance(rows=200, used=310, capacity=1024)   # the graph for 256 rows and 512 columns
"""

from collections.abc import Callable
from typing import Any

import torch

from cong.decoding.bands import Band
from cong.decoding.step import Step

COLUMNS = 256

Replay = Callable[[], None]


class GraphedSteps:
    """Runs steps through graphs that are captured as they are needed."""

    def __init__(self, step: Step, *, slots: int, capture: Callable[[Replay], Replay]) -> None:
        self._step, self._slots, self._capture = step, slots, capture
        self._capacity = 0
        self._seen: set[tuple[int, int]] = set()
        self._replays: dict[tuple[int, int], Replay] = {}

    def __call__(self, *, rows: int, used: int, capacity: int) -> None:
        """One token for at least the first `rows` slots, reading at least `used` columns of `capacity`."""
        if capacity != self._capacity:
            self._capacity = capacity
            self._seen.clear()
            self._replays.clear()
        bucket = rows_bucket(rows, slots=self._slots), min(-(-used // COLUMNS) * COLUMNS, capacity)
        if bucket not in self._seen:
            self._seen.add(bucket)
            self._step([Band(*bucket)])
            return
        if bucket not in self._replays:
            self._replays[bucket] = self._capture(lambda: self._step([Band(*bucket)]))
        self._replays[bucket]()


def rows_bucket(rows: int, *, slots: int) -> int:
    """The next power of two, and at most all slots."""
    return min(1 << (rows - 1).bit_length(), slots)


class CudaCapture:
    """Records what a step launches, without running it; returns what runs it.

    All graphs share one pool of memory: between two replays none of them holds anything that is still needed.
    """

    def __init__(self) -> None:
        # An object, not a bare handle: a cache that grows drops all graphs, and a pool that none of them uses is gone.
        self._pool = torch.cuda.MemPool()

    def __call__(self, step: Replay) -> Replay:
        graph = torch.cuda.CUDAGraph()
        pool: Any = self._pool.id
        with torch.cuda.graph(graph, pool=pool):
            step()
        return graph.replay
