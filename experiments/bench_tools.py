"""What the benchmarks share: one measured run, peaks of memory, and the limits of the device."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True)
class Run:
    """One measured run of one engine."""

    tokens: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measure(job: Callable[[], int], *, device: str) -> Run:
    """Run a job once; wall and CPU seconds, and the peak of device memory (on a CPU, of the process)."""
    _reset_peak(device)
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = job()
    if device != "cpu":
        torch.cuda.synchronize()
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return Run(tokens=tokens, seconds=seconds, cpu_seconds=cpu_seconds, peak_bytes=_peak(device))


def _reset_peak(device: str) -> None:
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak of resident memory starts again
    else:
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> int:
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def best_seconds(job: Callable[[], object], *, device: str, repeats: int = 5) -> float:
    job()
    # CPU time where rates are per CPU-second, so that other processes do not lower the limits.
    clock, times = time.process_time if device == "cpu" else time.perf_counter, []
    for _ in range(repeats):
        start = clock()
        job()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return min(times)


def device_limits(*, dtype: torch.dtype, device: str) -> tuple[float, float]:
    """Copy bandwidth in bytes/s (read and write) and matrix rate in flop/s, both measured now."""
    count, side = (2**26, 1536) if device == "cpu" else (2**31, 8192)
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = best_seconds(lambda: target.copy_(source), device=device)
    matrix = torch.randn(side, side, device=device).to(dtype)
    product = best_seconds(lambda: matrix @ matrix, device=device)
    return 2 * count / copy, 2 * side**3 / product


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lowest and highest."""
    return statistics.median(values), min(values), max(values)
