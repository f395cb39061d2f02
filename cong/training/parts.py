"""A frozen pass over rows in parts: each process computes its share, and a killed pass goes on at what is missing."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from cong.data import Row, write_rows
from cong.graph.resources import Resources

Compute = Callable[[list[Row]], list[Row]]


def compute_parts(
    rows: list[Row],
    *,
    directory: Path,
    size: int,
    load: Callable[[str], Compute],
    check: Callable[[list[Row]], None],
    progress: Path,
    unit: str,
    resources: Resources,
) -> None:
    """Write the parts of this process, every `world_size`-th one of `size` rows that is not there yet.

    `load` is given the device and returns what computes a part, with its models; it is called where a part is missing.
    `check` raises for a part that must not be written.
    """
    from cong.graph.journal import write_progress
    from cong.training.loop import prepare_process

    prepare_process(resources)
    rank, workers, device = _place(resources)
    paths = {start: directory / f"{start:010d}.parquet" for start in range(0, len(rows), size)}
    missing = [start for start in list(paths)[rank::workers] if not paths[start].exists()]
    compute = load(device) if missing else None
    for done, start in enumerate(missing):
        assert compute is not None
        made = compute(rows[start : start + size])
        check(made)
        write_rows(paths[start], made)
        if rank == 0:
            seen = min((len(paths) - len(missing) + done + 1) * size, len(rows))
            write_progress(progress, done=seen, total=len(rows), unit=unit)


@contextlib.contextmanager
def frozen_pass(resources: Resources) -> Iterator[None]:
    """Compute without gradients in the precision of the trainings, so that they begin where the frozen model is."""
    import torch

    mixed = resources.hardware.dtype == "bfloat16" and resources.training.deepspeed == "none"
    with torch.no_grad(), torch.autocast(resources.hardware.device, dtype=torch.bfloat16, enabled=mixed):
        yield


def _place(resources: Resources) -> tuple[int, int, str]:
    """Return this process's rank, the number of processes, and its device."""
    if not resources.training.distributed:
        return 0, 1, resources.hardware.device
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    return context.get_world_rank(), context.get_world_size(), str(ray.train.torch.get_device())
