"""`cong status`: what a store knows of experiments, their cells and stages, and of what runs now. It only reads files.

A run counts as running as long as its process lives: on this host that is seen, of another host the heartbeat tells.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.graph.execute import LOG
from cong.graph.journal import read_failure, read_progress
from cong.graph.store import RECORD, SUCCESS, lease
from cong.run.records import RUN, RUNS
from cong.run.terminal import describe_progress

FINISHED, RUNNING, FAILED, BEGUN, WAITING = "finished", "running", "failed", "unfinished", "not begun"


@dataclass(frozen=True, kw_only=True)
class StageState:
    """A stage's directory in a store, and what it shows."""

    directory: Path

    @property
    def name(self) -> str:
        """Return the directory below the store's root."""
        return f"{self.directory.parent.name}/{self.directory.name}"

    @cached_property
    def state(self) -> str:
        """Return one of the five states: what is finished or runs now may have failed before."""
        if (self.directory / SUCCESS).exists():
            return FINISHED
        if lease.holder(self.directory) is not None:
            return RUNNING
        if self.error is not None:
            return FAILED
        return BEGUN if self.directory.is_dir() else WAITING

    @cached_property
    def error(self) -> str | None:
        """Return the first line of the error of the last attempt."""
        return read_failure(self.directory)

    @property
    def text(self) -> str:
        """Return what a reader wants to know beside the state."""
        if self.state == FINISHED:
            return _duration(self.directory / RECORD)
        if self.state == RUNNING:
            return f"{describe_progress(read_progress(self.directory / 'progress.json'))}, {who(self.directory)}"
        if self.state == FAILED:
            log = self.directory / LOG
            return f"{self.error}" + (f"\nlog: {log}" if log.exists() else "")
        return ""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A recorded run."""

    root: Path
    """The store's root."""
    directory: Path
    record: dict[str, Any]

    @property
    def lives(self) -> bool:
        """Whether the run has not ended, and its process is not known to be dead."""
        return self.record["ended"] is None and lease.holder(self.directory) is not None

    @cached_property
    def stages(self) -> list[StageState]:
        """Return all stages, inputs first."""
        return [StageState(directory=self.root / stage["directory"]) for stage in self.record["stages"]]

    def of_cell(self, cell: dict[str, Any]) -> list[StageState]:
        """Return the stages of a cell, inputs first."""
        needed, queue = set(), [cell["stage"]]
        while queue:
            number = queue.pop()
            if number not in needed:
                needed.add(number)
                queue.extend(self.record["stages"][number]["inputs"])
        return [self.stages[number] for number in sorted(needed)]

    def finished_cells(self) -> int:
        """Return how many cells have their final stage."""
        return sum(self.stages[cell["stage"]].state == FINISHED for cell in self.record["cells"])

    @property
    def state(self) -> str:
        """Return what became of the run, as text."""
        job = f", job {self.record['job']}" if self.record["job"] else ""
        if self.record["ended"] is not None:
            return f"{self.record['how']}{job}"
        if self.lives:
            return f"running: {who(self.directory)}{job}"
        process = self.record["process"]
        return f"died: process {process['pid']} on {_host(process)} is gone{job}"


def who(directory: Path) -> str:
    """Return the process that holds the lease of a directory, and for how long it has been silent if it is suspect."""
    holder = lease.holder(directory)
    if holder is None:
        return "gone"
    silence = lease.silence(directory) or 0.0
    suspect = not lease.is_here(holder) and silence > lease.EXPIRY
    quiet = f", no sign of life for {span(silence)}" if suspect else ""
    return f"process {holder['pid']} on {_host(holder)}{quiet}"


def _host(process: dict[str, Any]) -> str:
    return process["host"].split("/")[0]


def runs(root: Path) -> list[RunState]:
    """Return per experiment the latest run, and all others that live; raise `UserError` when there is no store."""
    if not root.is_dir():
        raise UserError(f"there is no store at {root}")
    return [run for family in sorted((root / RUNS).glob("*")) for run in _of_family(root, family)]


def _of_family(root: Path, family: Path) -> list[RunState]:
    found = sorted(_read(root, family), key=lambda run: run.record["begun"])
    return [run for run in found if run.lives or run is found[-1]]


def _read(root: Path, family: Path) -> Iterator[RunState]:
    for directory in family.iterdir():
        try:
            yield RunState(root=root, directory=directory, record=json.loads((directory / RUN).read_text()))
        except (FileNotFoundError, NotADirectoryError):
            # It is just beginning, or was just taken away by one that begins.
            continue


def matching(root: Path, name: str) -> list[RunState]:
    """Return the runs of the experiment of that name, with or without its scale; or raise `UserError`."""
    found = runs(root)
    wanted = [run for run in found if name in (run.record["name"], run.record["experiment"])]
    if not wanted:
        known = ", ".join(sorted({run.record["name"] for run in found})) or "none"
        raise UserError(f"no run of an experiment {name!r} in {root}; there are {known}")
    return wanted


def all_stages(root: Path) -> list[StageState]:
    """Return every stage that has a directory in the store, whichever experiment it belongs to."""
    return [StageState(directory=path) for path in sorted(root.glob("[A-Z]*/*")) if path.is_dir()]


def counted(stages: list[StageState]) -> str:
    """Return how many stages are in which state."""
    numbers = Counter(stage.state for stage in stages)
    return ", ".join(f"{numbers[state]} {state}" for state in (FINISHED, RUNNING, FAILED, BEGUN, WAITING)
                     if numbers[state]) or "none"  # fmt: skip


def span(seconds: float) -> str:
    """Return a time span in its largest unit: `40 s`, `3 min`, `2.5 h`, `4.1 d`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


def when(moment: float) -> str:
    """Return a Unix time as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _duration(record: Path) -> str:
    try:
        return f"{json.loads(record.read_text())['seconds']:.1f} s"
    except (OSError, ValueError, KeyError):
        return "its record cannot be read: the next run writes it again"
