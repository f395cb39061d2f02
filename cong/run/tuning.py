"""Runs a search: trials of Ray Tune at the points that a searcher proposes, judged by a measure of their cells.

    cong tune experiments/alpha_sweep.py --over alpha=0:1 --over beta=0.01:1:log --measure reward --trials 20

Finished points are remembered in the store: the same command goes on where it was ended, and more trials add to them.
What no two points can have in common but the ends of all axes have, is computed first; of stages that only some points
share, the second trial waits for the first one's. No stage reports the measure before its end, so no trial is stopped
early.
"""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from cong.errors import UserError
from cong.experiment import Cell, collect, value_text
from cong.experiment.axes import Axis, Search, rounded
from cong.experiment.grid import Point, points
from cong.graph.demand import Capacity, count
from cong.graph.fingerprint import fingerprint
from cong.graph.journal import replace_text
from cong.graph.plan import Plan, make_plan
from cong.graph.runner import Observer, StageFailed, check_capacity, executor
from cong.graph.stage import Stage, topological
from cong.graph.store import Store
from cong.models.memory import check_fits
from cong.report import Block, Figure, Table, Text
from cong.run.launch import Job, check_resources, check_stages, share_definitions, write_page
from cong.run.sweep import Failures, Listener, Sweep
from cong.scales import scale

if TYPE_CHECKING:
    from cong.tracking import Tracker


@dataclass(frozen=True, kw_only=True)
class Found:
    """A finished point with the mean of the measure over its cells."""

    point: Point
    cells: list[Cell]
    value: float


class Points:
    """The points that a search has finished, remembered in the store."""

    def __init__(self, job: Job, search: Search) -> None:
        self.job, self.search = job, search
        # More trials go on with the same search.
        identity = fingerprint({**asdict(search), "trials": None, "settings": job.settings})
        self._path = job.store.root / "searches" / f"{job.name}-{identity[:8]}.json"
        self.known: list[Point] = self._load()

    def add(self, point: Point) -> None:
        """Remember a point, beside those that another process has found meanwhile."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(self._path.with_suffix(".lock"))):
            theirs = self._load()
            self.known += [other for other in theirs if other not in self.known]
            if point not in self.known:
                self.known.append(point)
            if self.known != theirs:
                replace_text(self._path, json.dumps(self.known, indent=1))

    def _load(self) -> list[Point]:
        return json.loads(self._path.read_text()) if self._path.exists() else []

    def found(self) -> list[Found]:
        """Return what is finished and has a finite measure, the best first."""
        done = [(point, cells) for point in self.known if (cells := self._accepted(point)) is not None]
        judged = [
            Found(point=point, cells=cells, value=mean_of(self.search.measure, cells, self.job.store))
            for point, cells in done
            if all(self.job.store.is_complete(cell.stage) for cell in cells)
        ]
        finite = [one for one in judged if math.isfinite(one.value)]
        return sorted(finite, key=lambda found: found.value, reverse=not self.search.lowest)

    def _accepted(self, point: Point) -> list[Cell] | None:
        try:
            return cells_at(self.job, point)
        except UserError:
            return None  # The experiment took it when it was found, and has changed since.


def cells_at(job: Job, point: Mapping[str, Any]) -> list[Cell]:
    """Return the cells of the experiment at a point, whose axes hold the point."""
    cells = job.experiment.cells(scale(job.scale), {**job.settings, **point})
    return [Cell(stage=cell.stage, axes={**point, **cell.axes}, may_lack=cell.may_lack) for cell in cells]


def mean_of(measure: str, cells: Sequence[Cell], store: Store) -> float:
    """Return the mean of a measure over finished cells, NaN or infinite when that of one cell is.

    Raises `UserError` when they have no number of that name.
    """
    values = [store.record(cell.stage)["results"] for cell in cells]
    numbers = [found.get(measure) for found in values]
    if not all(isinstance(number, int | float) for number in numbers):
        known = ", ".join(sorted(name for name, value in values[0].items() if isinstance(value, int | float)))
        raise UserError(f"--measure {measure}: the cells' results hold {known}")
    strange = [number for number in numbers if not math.isfinite(number)]
    return strange[0] if strange else math.fsum(numbers) / len(numbers)


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


def tune(job: Job, search: Search) -> Path:
    """Search, and write a report; return its page. `job` is the experiment at the ends of all axes, as a grid."""
    check_resources(job)
    job.store.prepare()
    check_stages(job)
    share_definitions()
    with executor(job.resources) as (_, capacity):
        check_capacity(job.plan, job.resources, capacity)
        return _tracked(job, search, capacity)


def _tracked(job: Job, search: Search, capacity: Capacity) -> Path:
    from cong.run.terminal import Terminal
    from cong.tracking import Tracker

    name = f"{job.name}-search"
    params = {"experiment": job.experiment.name, "scale": job.scale, "profile": job.resources.name, **job.settings}
    params |= {axis.name: f"{axis.values[0]} to {axis.values[-1]}" for axis in search.axes}
    params |= {"measure": search.measure, "searcher": search.searcher, "trials": search.trials}
    tracker, terminal = Tracker(store=job.store, cells=[], name=name, params=params), Terminal(job.store, total=None)
    finished = Points(job, search)
    sweep = Sweep(
        store=job.store,
        resources=job.resources,
        capacity=capacity,
        observers=(tracker, terminal),
        tracking_run=tracker.run_id,
    )
    try:
        failures, refused = _run(sweep, search, finished, tracker)
        found = finished.found()
        if not found:
            raise StageFailed(failures) if failures else UserError(_nothing(refused))
        results = collect([cell for one in found for cell in one.cells], job.store)
        blocks = list(_blocks(search, found, failed=len(failures), refused=refused))
        written = write_page(job, name, blocks, _stages(found), results)
        job.store.share(written.page.parent)
    except BaseException:
        tracker.close(None)
        raise
    finally:
        terminal.close()
    tracker.close(results, written.files)
    print(f"best {search.measure}: {found[0].value:.4g} at {_text(found[0].point)}, of {len(found)} points")
    return written.page


def _run(sweep: Sweep, search: Search, finished: "Points", tracker: "Tracker") -> tuple[Failures, list[str]]:
    """Compute; return what failed, and a line for every point that is left out for another reason."""
    job = finished.job
    failures = sweep.run_stages(_common(job))
    if failures:
        raise StageFailed(failures)
    listener = _SearchListener(points=finished, observers=sweep.observers, tracker=tracker)

    def cells(config: Mapping[str, Any]) -> list[Cell]:
        return cells_at(job, rounded(config))

    sweep.fit(
        work=lambda config: planned(job, cells(config)),
        value=lambda config: mean_of(search.measure, cells(config), job.store),
        space={axis.name: axis.domain() for axis in search.axes},
        stages=job.plan.stages,
        listener=listener,
        mode=search.mode,
        num_samples=search.trials,
        search_alg=search.algorithm(finished.known[: search.trials]),
    )
    # A random search comes to some points several times.
    return listener.failures, list(dict.fromkeys(f"{_text(rounded(at))}: {why}" for at, why in listener.refused))


class _SearchListener(Listener):
    """Learns of each point's cells when its trial begins, and remembers the point when it has ended well."""

    def __init__(self, *, points: "Points", observers: Sequence[Observer], tracker: "Tracker") -> None:
        super().__init__(observers=observers, stages=[])
        self._points, self._tracker = points, tracker
        self._begun: set[str] = set()

    def begin(self, trial: str, config: Mapping[str, Any]) -> None:
        try:
            cells = cells_at(self._points.job, rounded(config))
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
            print(f"note: left out at {_text(rounded(config))}: {why}", file=sys.stderr, flush=True)
        elif math.isfinite(value):
            self._points.add(rounded(config))


def _common(job: Job) -> list[Stage]:
    """Return the stages to run that every point needs, seen at the ends of all axes."""
    needed = []
    for point in points(job.grid):
        # Of a point that the experiment refuses nothing is needed.
        with contextlib.suppress(UserError):
            stages = topological([cell.stage for cell in cells_at(job, point)])
            needed.append({stage.fingerprint for stage in stages})
    everywhere = set.intersection(*needed)
    return [stage for stage in job.plan.todo if stage.fingerprint in everywhere]


def _stages(found: Sequence[Found]) -> Sequence[Stage]:
    return topological([cell.stage for one in found for cell in one.cells])


def _text(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value_text(value)}" for name, value in point.items())


def _nothing(refused: Sequence[str]) -> str:
    """Return why a search that computed something has no best point."""
    first = refused[0] if refused else "no trial has ended"
    return f"none of {count(len(refused), 'point')} of the search can be used: {first}"


def _blocks(search: Search, found: Sequence[Found], *, failed: int, refused: Sequence[str]) -> Iterator[Block]:
    if failed:
        yield Text(text=f"{failed} stage(s) failed; their points are left out.", warning=True)
    if refused:
        yield Text(text=f"{count(len(refused), 'point')} left out: {'; '.join(refused)}.", warning=True)
    numeric = [axis for axis in search.axes if all(isinstance(value, int | float) for value in axis.values)]
    if numeric:
        yield Figure(
            title=f"{search.measure} at the points of the search",
            name="search",
            panels=len(numeric),
            draw=lambda panels: _draw(panels if len(numeric) > 1 else [panels], numeric, search.measure, found),
        )
    yield Table(
        title="Points, the best first",
        columns=("rank", *search.names, search.measure),
        rows=[
            (str(rank), *(value_text(one.point[name]) for name in search.names), f"{one.value:.4g}")
            for rank, one in enumerate(found, start=1)
        ],
        caption="The measure is the mean over the cells of a point. The best of many points looks better than it is: "
        "measure it again on other prompts or seeds.",
    )


def _draw(panels: Any, axes: Sequence[Axis], measure: str, found: Sequence[Found]) -> None:
    for panel, axis in zip(panels, axes, strict=True):
        panel.plot([one.point[axis.name] for one in found], [one.value for one in found], "o", markersize=4)
        panel.plot(found[0].point[axis.name], found[0].value, "o", markersize=9, fillstyle="none", color="tab:red")
        if axis.logarithmic:
            panel.set_xscale("log")
        panel.set_xlabel(axis.name)
        panel.set_ylabel(measure)
