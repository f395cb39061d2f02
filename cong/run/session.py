"""What a run and a search have in common: check, connect, compute, report, track.

page = carry_out(task)    # a `Task` says what is computed and what is reported
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cong.experiment import Cell, Results
from cong.graph.demand import Capacity
from cong.graph.runner import Observer, check_capacity, executor
from cong.graph.userfiles import share_definitions
from cong.run.checks import check
from cong.run.job import Job

if TYPE_CHECKING:
    from cong.report import Report
    from cong.run.terminal import Terminal
    from cong.tracking import Tracker


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a computation is given: what the cluster has, and who watches."""

    capacity: Capacity | None
    """None where nothing is to be computed: then no cluster is connected."""
    tracker: "Tracker"
    terminal: "Terminal"

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Return those that are informed of every stage."""
        return (self.tracker, self.terminal)


class Task(Protocol):
    """A run of an experiment's cells, or a search among its axes."""

    @property
    def job(self) -> Job:
        """Return the experiment and where it runs."""
        ...

    @property
    def name(self) -> str:
        """Return the name in the tracker and of the report."""
        ...

    @property
    def params(self) -> dict[str, Any]:
        """Return what the tracker shows as parameters."""
        ...

    @property
    def cells(self) -> list[Cell]:
        """Return the cells that the tracker has runs for; a search adds its own as it comes to them."""
        ...

    @property
    def total(self) -> int | None:
        """Return how many stages are to run, None where that is not known."""
        ...

    def recorded(self) -> AbstractContextManager[None]:
        """Return what keeps the task's record in the store while it runs."""
        ...

    def compute(self, session: Session) -> None:
        """Compute what is missing."""
        ...

    def report(self) -> "tuple[Results, Report]":
        """Write the report of what is computed."""
        ...


def carry_out(task: Task) -> "Report":
    """Check, connect, compute, report and track; return the report."""
    from cong.run.terminal import Terminal

    job = task.job
    check(job)
    with _connected(task) as capacity, task.recorded(), _tracked(task) as tracker:
        with closing(Terminal(job.store, total=task.total)) as terminal:
            task.compute(Session(capacity=capacity, tracker=tracker, terminal=terminal))
        results, written = task.report()
        tracker.close(results, written.files)
    return written


@contextmanager
def _connected(task: Task) -> Iterator[Capacity | None]:
    """Connect before anything is written down: a wrong address or too small a cluster leaves no trace."""
    job = task.job
    if task.total == 0:
        yield None
        return
    share_definitions()
    with executor(job.resources) as (_, capacity):
        if note := check_capacity(job.plan, job.resources, capacity):
            print(note, flush=True)
        yield capacity


@contextmanager
def _tracked(task: Task) -> "Iterator[Tracker]":
    from cong.tracking import Tracker

    tracker = Tracker(store=task.job.store, cells=task.cells, name=task.name, params=task.params)
    try:
        yield tracker
    except BaseException:
        tracker.close(None)
        raise
