"""What a run cost: per kind of stage how many, how long, how many tokens."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from cong.graph.stage import Stage
from cong.graph.store import Store
from cong.report.blocks import Table


def costs(stages: Iterable[Stage], store: Store) -> Table:
    """Return the table of stages, in the order in which they are computed."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for stage in stages:
        if store.is_complete(stage):
            groups[stage.name].append(store.record(stage))
    rows = [_row(name, records) for name, records in groups.items()]
    total = sum(record["seconds"] for records in groups.values() for record in records)
    everything = [record for records in groups.values() for record in records]
    gpu_hours = sum(record["gpu_seconds"] for record in everything) / 3600
    caption = f"{len(everything)} stages, {total:.0f} s of stage time in all, {gpu_hours:.2f} GPU-hours."
    return Table(
        title="What was run",
        columns=("stage", "count", "seconds in all", "longest", "tokens", "tokens per second"),
        rows=rows,
        caption=caption,
    )


def _row(name: str, records: list[dict[str, Any]]) -> tuple[str, ...]:
    seconds = [record["seconds"] for record in records]
    measured = [record["results"] for record in records if "tokens_per_second" in record["results"]]
    tokens = sum(results.get("tokens", 0) for results in measured)
    speed = f"{sum(results['tokens_per_second'] for results in measured) / len(measured):.0f}" if measured else ""
    return (name, str(len(records)), f"{sum(seconds):.1f}", f"{max(seconds):.1f}", f"{tokens or ''}", speed)
