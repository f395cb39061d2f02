"""`cong status` as tables."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.experiment import value_text
from cong.run import status
from cong.run.status import FAILED, RUNNING, RunState, StageState

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 240


def show(root: Path) -> None:
    """Print a line per experiment, then what runs now, what failed, and the store's stages in all."""
    console, runs, stages = _console(), status.runs(root), status.all_stages(root)
    if runs:
        _print(console, ("experiment", "cells", "stages", "begun", "lasted", "state"), map(_line, runs))
    else:
        print(f"no run is recorded in {root}")
    for title, state in (("running now", RUNNING), ("failed", FAILED)):
        _stages(console, title, [stage for stage in stages if stage.state == state])
    print(f"\nstages in the store: {status.counted(stages)}")


def show_experiment(root: Path, name: str) -> None:
    """Print the cells and stages of one experiment."""
    console = _console()
    for run in status.matching(root, name):
        record = run.record
        print(f"{record['name']}: {record['title']}")
        print(
            f"{run.state}; begun {status.when(record['begun'])}, lasted {_lasted(record)}, profile {record['profile']}"
        )
        chosen = [f"{key}={value_text(value)}" for key, value in (record["settings"] | record["grid"]).items()]
        if chosen:
            print(f"set: {' '.join(chosen)}")
        _print(console, ("cell", "state", "stages"), [_cell(run, cell) for cell in record["cells"]])
        _stages(console, "stages", run.stages)
        print(f"\nstages: {status.counted(run.stages)}")


def show_jobs(jobs: list[Any], address: str) -> None:
    """Print the jobs of a cluster."""
    from cong.submit.jobs import EXPERIMENT, STORE

    rows = []
    for job in jobs:
        given = job.metadata or {}
        begun = (job.start_time or 0) / 1000
        ended = job.end_time / 1000 if job.end_time else time.time()
        rows.append(
            (
                job.submission_id,
                job.status.value.lower(),
                given.get(EXPERIMENT, "-"),
                status.when(begun) if begun else "-",
                status.span(ended - begun) if begun else "-",
                given.get(STORE, "-"),
            )
        )
    print(f"jobs at {address}")
    _print(_console(), ("job", "state", "experiment", "since", "lasted", "store"), rows)


def _line(run: RunState) -> tuple[str, ...]:
    record = run.record
    done = sum(stage.state == status.FINISHED for stage in run.stages)
    return (
        record["name"],
        f"{run.finished_cells()} of {len(record['cells'])}",
        f"{done} of {len(run.stages)}",
        status.when(record["begun"]),
        _lasted(record),
        run.state,
    )


def _lasted(record: dict[str, Any]) -> str:
    return status.span((record["ended"] or time.time()) - record["begun"])


def _cell(run: RunState, cell: dict[str, Any]) -> tuple[str, ...]:
    name = ",".join(f"{key}={value_text(value)}" for key, value in cell["axes"].items())
    stages = run.of_cell(cell)
    states = [stage.state for stage in stages]
    final = run.stages[cell["stage"]].state
    now = next((state for state in (RUNNING, FAILED) if state in states), final)
    done = states.count(status.FINISHED)
    return name, final if final == status.FINISHED else now, f"{done} of {len(stages)}"


def _stages(console: "Console", title: str, stages: list[StageState]) -> None:
    if stages:
        print(f"\n{title}")
        _print(console, ("stage", "state", ""), [(stage.name, stage.state, stage.text) for stage in stages])


def _print(console: "Console", columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _console() -> "Console":
    from rich.console import Console

    # A pipe has no width: a line for every row lets other programs read it.
    return Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)
