"""Map rows over Ray Data actors, or in this process, durably: what is finished is never computed again.

Every actor holds one worker (models and all) and writes finished rows to `parts/`, a few at a time, each file whole or
absent. A rerun reads the parts, computes the rows that are missing, and merges all in the order of the input.
"""

import functools
import gc
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from cong.data.rows import Row, as_table, check_failures, read_rows, write_rows
from cong.data.token_counts import counting, counts_in, repeatedly
from cong.errors import UserError
from cong.graph.cluster import this_node
from cong.graph.resources import Resources
from cong.graph.stage import Context

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

PART_ROWS = 64
PART_SECONDS = 10.0


class Worker(Protocol):
    """Turns rows into finished rows, each with the `row_id` of its input, `num_tokens` and `error`, in any order."""

    def process(self, rows: list[Row]) -> Iterator[Row]:
        """Yield each row as soon as it is finished."""
        ...


def map_rows(ctx: Context, make_worker: Callable[[], Worker], rows: list[Row], *, max_error_share: float) -> list[Row]:
    """Return the finished rows in the order of `rows`; raise `RuntimeError` when more than the allowed share failed."""
    parts = ctx.scratch / "parts"
    parts.mkdir(exist_ok=True)
    done = _finished_ids(parts)
    missing = [row for row in rows if row["row_id"] not in done]
    started = time.time()
    with repeatedly(_Watch(ctx, parts, total=len(rows)).look):
        _compute(make_worker, parts, missing, ctx.resources)
    merged = _merge(parts, rows)
    check_failures(merged, max_error_share)
    _summarize(ctx, merged, done=done, seconds=time.time() - started)
    return merged


class Actor:
    """Holds a worker and computes batches of rows: the class of the Ray Data actors."""

    def __init__(self, make_worker: Callable[[], Worker], parts: Path) -> None:
        self._parts, self._name = parts, uuid.uuid4().hex
        self._worker: Worker | None = None
        self._refusal: UserError | None = None
        try:
            self._worker = make_worker()
        except UserError as error:
            # Ray would start the actor again, and then show a traceback of its own instead of this line.
            self._refusal = error

    def __call__(self, batch: "pa.Table") -> dict[str, "np.ndarray"]:
        """Compute the rows of a batch; return how many there were, and why they could not be computed.

        A batch is tried again when its actor dies: what the dead actor had written is not computed twice.
        """
        import numpy as np

        done = _finished_ids(self._parts)
        missing = [row for row in batch.to_pylist() if row["row_id"] not in done]
        try:
            return {"rows": np.array([self.compute(missing)]), "refusal": np.array([""])}
        except UserError as error:
            return {"rows": np.array([0]), "refusal": np.array([str(error)])}

    def compute(self, rows: list[Row]) -> int:
        """Write the finished rows to parts as they come, and return how many there were."""
        if self._worker is None:
            assert self._refusal is not None
            raise self._refusal
        with counting(self._worker, self._parts, name=self._name):
            for part in _in_parts(self._worker.process(rows)):
                tokens = sum(row["num_tokens"] for row in part)
                write_rows(self._parts / f"part-{len(part)}-{tokens}-{uuid.uuid4().hex}.parquet", part)
        return len(rows)


def _compute(make_worker: Callable[[], Worker], parts: Path, missing: list[Row], resources: Resources) -> None:
    if not missing:
        return
    if not resources.uses_actors:
        Actor(make_worker, parts).compute(missing)
        return
    import ray.data

    # The stage reports its own progress, and what an actor raises is raised here.
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # One block is what an actor computes at a stretch: long enough to keep its slots full, short enough to share out.
    slots = resources.decoding.rows_at_a_time
    size = max(slots, min(8 * slots, -(-len(missing) // resources.decoding.actors)))
    blocks = [as_table(missing[start : start + size]) for start in range(0, len(missing), size)]
    beside: dict[str, Any] = {"resources": this_node()} if resources.cluster.one_node else {}
    dataset = ray.data.from_arrow(blocks).map_batches(
        Actor,
        fn_constructor_args=(make_worker, parts),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(resources.decoding.actors, len(blocks))),
        num_cpus=resources.actor_demand.cpus,
        num_gpus=resources.actor_demand.gpus,
        **beside,
    )
    counted = cast("Iterator[dict[str, np.ndarray]]", dataset.iter_batches(batch_size=None))
    refusals = [str(text) for batch in counted for text in batch["refusal"] if text]
    # Ray ends actors when nothing refers to them any more. A cycle does, until Python happens to look for cycles; what
    # this process asks for next might wait for the actors' CPUs for ever.
    del dataset, counted
    gc.collect()
    if refusals:
        raise UserError(refusals[0])


def _in_parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    since = time.monotonic()
    for row in rows:
        part.append(row)
        if len(part) >= PART_ROWS or time.monotonic() - since > PART_SECONDS:
            yield part
            part, since = [], time.monotonic()
    if part:
        yield part


def _part_files(parts: Path) -> list[Path]:
    return sorted(parts.glob("part-*.parquet"))


def _finished_ids(parts: Path) -> set[str]:
    return {row_id for path in _part_files(parts) for row_id in _ids_in(path)}


@functools.cache
def _ids_in(part: Path) -> tuple[str, ...]:
    """Return the ids in a part; parts never change. One that a crash of the machine left unreadable is set aside."""
    import pyarrow as pa

    try:
        return tuple(row["row_id"] for row in read_rows(part, columns=["row_id"]))
    except pa.ArrowInvalid:
        part.rename(part.with_suffix(".unreadable"))
        return ()


def _merge(parts: Path, rows: list[Row]) -> list[Row]:
    # Two actors can have finished the same row when one was believed dead: both are equal, one is kept.
    found = {row["row_id"]: row for path in _part_files(parts) for row in read_rows(path)}
    missing = [row["row_id"] for row in rows if row["row_id"] not in found]
    if missing:
        raise RuntimeError(f"{len(missing)} rows were not computed, the first is {missing[0]}")
    return [found[row["row_id"]] for row in rows]


def _summarize(ctx: Context, rows: list[Row], *, done: set[str], seconds: float) -> None:
    new = [row for row in rows if row["row_id"] not in done]
    tokens = sum(row["num_tokens"] for row in new)
    ctx.summary(
        rows=len(rows),
        failed_rows=sum(row["error"] is not None for row in rows),
        rows_from_earlier_runs=len(rows) - len(new),
        tokens=sum(row["num_tokens"] for row in rows),
        tokens_per_second=tokens / max(seconds, 1e-9),
    )


class _Watch:
    """Reports progress and throughput from the parts and the counts beside them, whichever node writes them."""

    def __init__(self, ctx: Context, parts: Path, *, total: int) -> None:
        self._ctx, self._parts, self._total = ctx, parts, total
        self._earlier, self._counts = set(counts_in(parts)), dict[str, int]()
        _, self._tokens_before = self._finished()
        self._started, self._reported = time.monotonic(), -1

    def look(self) -> None:
        """Write how far the workers are, and a point of the curves when rows have been finished."""
        rows, finished = self._finished()
        decoded = self._decoded(finished)
        known = {} if decoded is None else {"tokens": decoded}
        self._ctx.progress(done=rows, total=self._total, unit="rows", tokens=decoded, finished_tokens=finished)
        if rows != self._reported:
            new = (finished if decoded is None else decoded) - self._tokens_before
            rate = new / max(time.monotonic() - self._started, 1e-9)
            self._ctx.log(rows, **known, tokens_per_second=rate)
            self._reported = rows

    def _finished(self) -> tuple[int, int]:
        """Return the rows of all parts and their tokens."""
        counts = [path.name.split("-")[1:3] for path in _part_files(self._parts)]
        return sum(int(rows) for rows, _ in counts), sum(int(tokens) for _, tokens in counts)

    def _decoded(self, finished: int) -> int | None:
        """Return the tokens of earlier runs' rows and all of this run; None while no worker counts any.

        What an actor that died had not finished stays counted, like all that is decoded twice.
        """
        found = counts_in(self._parts)
        self._counts |= {name: found[name] for name in found.keys() - self._earlier}
        # A count may be a second older than the parts beside it.
        return max(finished, self._tokens_before + sum(self._counts.values())) if self._counts else None
