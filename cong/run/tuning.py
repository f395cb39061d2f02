"""Runs a search: trials of Ray Tune at the points that a searcher proposes, judged by a measure of their cells.

    cong tune experiments/alpha_sweep.py --over alpha=0:1 --over beta=0.01:1:log --measure reward --trials 20

Finished points are remembered in the store: the same command continues where it was ended, and more trials add to them.
What no two points can have in common but the ends of all axes have, is computed first; of stages that only some points
share, the second trial waits for the first one's. No stage reports the measure before its end, so no trial is stopped
early.
"""

import contextlib
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.errors import UserError
from cong.experiment import Cell, Results, collect
from cong.experiment.axes import Search, rounded
from cong.experiment.grid import points
from cong.graph.demand import count
from cong.graph.plan import Plan, make_plan
from cong.graph.runner import Observer, StageFailed
from cong.graph.stage import Stage, topological
from cong.models.memory import check_fits
from cong.run.job import Job
from cong.run.pages import write_page
from cong.run.points import Points
from cong.run.searchpage import point_text, search_blocks
from cong.run.session import Session, carry_out
from cong.run.sweep import Failures, Listener, Sweep

if TYPE_CHECKING:
    from cong.report import Report
    from cong.tracking import Tracker


def tune(job: Job, search: Search) -> Path:
    """Search, and write a report; return its page. `job` is the experiment at the ends of all axes, as a grid."""
    task = Searching(job=job, search=search, finished=Points(job, search))
    written = carry_out(task)
    judged = task.finished.judged()
    best = judged[0]
    print(f"best {search.measure}: {best.value:.4g} at {point_text(best.point)}, of {len(judged)} points")
    return written.page


@dataclass(kw_only=True)
class Searching:
    """Trials at the points that a searcher proposes."""

    job: Job
    search: Search
    finished: Points
    failures: Failures = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """A line for every point that is left out for another reason than a failure."""

    @property
    def name(self) -> str:
        return f"{self.job.name}-search"

    @property
    def params(self) -> dict[str, Any]:
        search = self.search
        ends = {axis.name: f"{axis.values[0]} to {axis.values[-1]}" for axis in search.axes}
        chosen = {"measure": search.measure, "searcher": search.searcher, "trials": search.trials}
        return self.job.params | ends | chosen

    @property
    def cells(self) -> list[Cell]:
        return []

    @property
    def total(self) -> None:
        return None

    def recorded(self) -> AbstractContextManager[None]:
        return nullcontext()

    def compute(self, session: Session) -> None:
        assert session.capacity is not None
        sweep = Sweep(
            store=self.job.store,
            resources=self.job.resources,
            capacity=session.capacity,
            observers=session.observers,
            tracking_run=session.tracker.run_id,
        )
        if failures := sweep.run_stages(_common(self.job)):
            raise StageFailed(failures)
        listener = _SearchListener(points=self.finished, observers=sweep.observers, tracker=session.tracker)
        self._fit(sweep, listener)
        self.failures = listener.failures
        # A random search comes to some points several times.
        lines = (f"{point_text(rounded(at))}: {why}" for at, why in listener.refused)
        self.refused = list(dict.fromkeys(lines))

    def _fit(self, sweep: Sweep, listener: Listener) -> None:
        job, search = self.job, self.search
        sweep.fit(
            work=lambda config: planned(job, job.cells_at(rounded(config))),
            value=lambda config: self.finished.value(job.cells_at(rounded(config))),
            space={axis.name: axis.domain() for axis in search.axes},
            stages=job.plan.stages,
            listener=listener,
            mode=search.mode,
            num_samples=search.trials,
            search_alg=search.algorithm(self.finished.known[: search.trials]),
        )

    def report(self) -> "tuple[Results, Report]":
        judged = self.finished.judged()
        if not judged:
            raise StageFailed(self.failures) if self.failures else UserError(_nothing(self.refused))
        cells = [cell for point in judged for cell in point.cells]
        results, stages = collect(cells, self.job.store), topological([cell.stage for cell in cells])
        blocks = list(search_blocks(self.search, judged, failed=len(self.failures), refused=self.refused))
        written = write_page(self.job, name=self.name, blocks=blocks, stages=stages, results=results)
        self.job.store.share(written.page.parent)
        return results, written


def planned(job: Job, cells: Sequence[Cell]) -> Plan:
    """Return what cells of one point lack; raise `UserError` when a stage of it cannot be run as the profile says."""
    plan = make_plan({cell.name: cell.stage for cell in cells}, job.store)
    try:
        for stage in plan.todo:
            stage.demand(job.resources)
            stage.check()
            stage.check_execution(job.resources)
    except ValueError as error:
        raise UserError(str(error)) from error
    check_fits(plan.todo, job.resources)
    return plan


class _SearchListener(Listener):
    """Learns of each point's cells when its trial begins, and remembers the point when it has ended well."""

    def __init__(self, *, points: "Points", observers: Sequence[Observer], tracker: "Tracker") -> None:
        super().__init__(observers=observers, stages=[])
        self._points, self._tracker = points, tracker
        self._begun: set[str] = set()

    def begin(self, trial: str, config: Mapping[str, Any]) -> None:
        try:
            cells = self._points.job.cells_at(rounded(config))
        except UserError:
            return  # The trial reports it when it ends.
        self.add(topological([cell.stage for cell in cells]))
        if trial not in self._begun:
            self._begun.add(trial)
            for cell in cells:
                self._tracker.add(cell)

    def end(self, trial: str, config: Mapping[str, Any], value: float, why: str | None) -> None:
        super().end(trial, config, value, why)
        if why is not None:
            print(f"note: left out at {point_text(rounded(config))}: {why}", file=sys.stderr, flush=True)
        elif math.isfinite(value):
            self._points.add(rounded(config))


def _common(job: Job) -> list[Stage]:
    """Return the stages to run that every point needs, seen at the ends of all axes."""
    needed = []
    for point in points(job.grid):
        # Of a point that the experiment refuses nothing is needed.
        with contextlib.suppress(UserError):
            stages = topological([cell.stage for cell in job.cells_at(point)])
            needed.append({stage.fingerprint for stage in stages})
    everywhere = set.intersection(*needed)
    return [stage for stage in job.plan.todo if stage.fingerprint in everywhere]


def _nothing(refused: Sequence[str]) -> str:
    """Return why a search that computed something has no best point."""
    first = refused[0] if refused else "no trial has ended"
    return f"none of {count(len(refused), 'point')} of the search can be used: {first}"
