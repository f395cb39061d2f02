"""From an experiment file to results: plan, check, run, track, report. The command line is a shell around this."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.errors import NothingLeft, UserError
from cong.experiment import PREFIX, Cell, Experiment, Results, collect, guarded, load
from cong.experiment.grid import accepted_cells, chosen_grid, grid_cells
from cong.graph.demand import Capacity
from cong.graph.plan import Plan, check_makers, make_plan
from cong.graph.resources import Resources
from cong.graph.runner import Runner, StageFailed, check_capacity, executor
from cong.graph.stage import Stage
from cong.graph.store import Store
from cong.models.memory import check_fits
from cong.models.mirror import undeclared
from cong.run.naming import name_in
from cong.run.records import recorded
from cong.run.sweep import Sweep
from cong.scales import scale as scale_named

if TYPE_CHECKING:
    from cong.run.terminal import Terminal
    from cong.tracking import Tracker


@dataclass(frozen=True, kw_only=True)
class Job:
    """An experiment with everything that was chosen on the command line."""

    name: str
    """The experiment's name in the store, in the tracker and in reports."""
    experiment: Experiment
    cells: list[Cell]
    scale: str
    settings: dict[str, Any]
    grid: dict[str, tuple[Any, ...]]
    resources: Resources
    store: Store
    plan: Plan


def prepare(
    path: Path,
    *,
    scale: str,
    assignments: list[str],
    resources: Resources,
    store: Store,
    force: tuple[str, ...] = (),
    grid: tuple[str, ...] = (),
    own_grid: bool = True,
) -> Job:
    """Load an experiment and plan it; raise `UserError` for every mistake that can be seen without running.

    `assignments` and `grid` hold `AXIS=VALUE` and `AXIS=VALUES`; an axis given here replaces the file's own grid of it,
    which counts unless `own_grid` is false: then the grid is that of a search, without points that are refused.
    """
    experiment = load(path)
    settings = experiment.settings(assignments)
    values = chosen_grid(experiment, settings, grid, own=experiment.grid if own_grid else ())
    cells = (grid_cells if own_grid else accepted_cells)(experiment, scale_named(scale), settings, values)
    plan = guarded(path, lambda: make_plan({cell.name: cell.stage for cell in cells}, store, force=force))
    return Job(
        name=name_in(store.root, base=f"{experiment.name}-{scale}", path=path),
        experiment=experiment,
        cells=cells,
        scale=scale,
        settings=settings,
        grid=values,
        resources=resources,
        store=store,
        plan=plan,
    )


def run(job: Job) -> Path:
    """Compute what is missing and write the report; return its page."""
    check_resources(job)
    check_devices(job)
    job.store.prepare()
    check_stages(job)
    if not job.plan.todo:
        return _run_recorded(job, None)
    share_definitions()
    # Connect before anything is written down: a wrong address or too small a cluster leaves no trace.
    with executor(job.resources) as (_, capacity):
        if note := check_capacity(job.plan, job.resources, capacity):
            print(note, flush=True)
        return _run_recorded(job, capacity)


def check_stages(job: Job) -> None:
    """Let the stages that are to run look at what lies outside of the graph; raise `UserError`."""
    check_makers(job.plan, job.store)
    for line in undeclared(job.plan.stages):
        print(f"note: {line}", file=sys.stderr, flush=True)
    for stage in job.plan.todo:
        stage.check()
        stage.check_execution(job.resources)


def _run_recorded(job: Job, capacity: Capacity | None) -> Path:
    with recorded(job):
        return _run_tracked(job, capacity)


def _run_tracked(job: Job, capacity: Capacity | None) -> Path:
    from cong.run.terminal import Terminal
    from cong.tracking import Tracker

    started = time.monotonic()
    params = {"experiment": job.experiment.name, "scale": job.scale, "profile": job.resources.name}
    params |= job.settings | {axis: ",".join(map(str, values)) for axis, values in job.grid.items()}
    tracker = Tracker(store=job.store, cells=job.cells, name=job.name, params=params)
    terminal = Terminal(job.store, total=len(job.plan.todo))
    try:
        _compute(job, capacity, tracker, terminal)
        written = report(job)
    except BaseException:
        tracker.close(None)
        raise
    tracker.close(collect(job.cells, job.store), written.files)
    made = sum(job.store.is_complete(stage) for stage in job.plan.todo)
    seconds = time.monotonic() - started
    print(f"{made} stages computed, {len(job.plan.stages) - len(job.plan.todo)} found in the store, {seconds:.1f} s")
    return written.page


def _compute(job: Job, capacity: Capacity | None, tracker: "Tracker", terminal: "Terminal") -> None:
    common: dict[str, Any] = {
        "store": job.store,
        "resources": job.resources,
        "observers": (tracker, terminal),
        "tracking_run": tracker.run_id,
    }
    swept = job.grid and job.resources.ray and capacity is not None
    run = Sweep(capacity=capacity, **common).run if swept else Runner(**common).run  # pyright: ignore[reportArgumentType]
    try:
        run(job.plan)
        while (plan := remade_inputs(job)) is not None:
            run(plan)
    except StageFailed as failed:
        if _unfinished(job) or not all(isinstance(error, NothingLeft) for _, error in failed.failures):
            raise
    finally:
        terminal.close()


def remade_inputs(job: Job) -> Plan | None:
    """Return what is left of a run: finished stages whose inputs had to be computed again and came out otherwise."""
    if not job.plan.endangers:
        return None
    plan = make_plan(job.plan.targets, job.store)
    return plan if plan.stale else None


def _unfinished(job: Job) -> list[str]:
    """Return the names of the cells that have no result and should have one."""
    return [cell.name for cell in job.cells if not cell.may_lack and not job.store.is_complete(cell.stage)]


def report(job: Job) -> Any:
    """Write the report of a finished experiment; raise `UserError` when cells are missing."""
    if missing := _unfinished(job):
        raise UserError(
            f"{len(missing)} of {len(job.cells)} cells are not finished, the first is {missing[0]}: run first"
        )
    from cong.report.browser import browse

    check_makers(job.plan, job.store)
    results = collect(job.cells, job.store)
    pages = job.experiment.pages(results)
    # Where the parts of an experiment have pages, it is there that their responses are looked at.
    last = None if pages else browse(results)
    blocks = [block for block in (*job.experiment.report(results), last) if block]
    written = write_page(job, job.name, blocks, job.plan.stages, results)
    further = _write_further(written.page.parent, pages)
    job.store.share(written.page.parent)
    return replace(written, files=(*written.files, *further))


def _write_further(directory: Path, pages: list[Any]) -> list[Path]:
    """Write the further pages of an experiment that has any, beside the first."""
    from cong.report import write_report
    from cong.report.browser import browse

    files: list[Path] = []
    for page in pages:
        blocks = [block for block in (*page.blocks, browse(page.results)) if block]
        written = write_report(directory, name=page.name, title=page.title, description=page.description, blocks=blocks)
        files += (written.page, written.page.with_suffix(".md"))
    return files


def write_page(job: Job, name: str, blocks: list[Any], stages: Sequence[Stage], results: Results) -> Any:
    """Write a page of the store's reports, with what its stages and the methods of its results cost."""
    from cong.report import write_report
    from cong.report.costpage import as_csv, cost_blocks

    return write_report(
        job.store.root / "reports" / name,
        name=name,
        title=job.experiment.title,
        description=job.experiment.description,
        blocks=[*blocks, *cost_blocks(stages, job.store, results)],
        attachments={f"{name}-costs.csv": as_csv(stages, job.store)},
    )


def check_resources(job: Job) -> None:
    """Raise `UserError` when a stage to run cannot be run as the profile says."""
    try:
        for stage in job.plan.todo:
            stage.demand(job.resources)
    except ValueError as error:
        raise UserError(f"profile {job.resources.name}: {error}") from error
    check_fits(job.plan.todo, job.resources)


def check_devices(job: Job) -> None:
    """Raise `UserError` when the scale's models need a GPU and the profile has none."""
    # A mirror may hold small stand-ins for the scale's models, and those run anywhere.
    if job.resources.device == "cuda" or not scale_named(job.scale).gpu or os.environ.get("CONG_MIRROR"):
        return
    cuda = replace(job.resources, device="cuda")
    wanting = next((stage for stage in job.plan.todo if stage.demand(cuda).gpus), None)
    if wanting is not None:
        raise UserError(
            f"{wanting.title} needs a GPU at scale {job.scale}, and profile {job.resources.name} has device = 'cpu': "
            "choose a profile with GPUs, such as --profile l40x4"
        )


def share_definitions() -> None:
    """Let Ray's workers have the stages that the loaded experiment files themselves define."""
    from ray import cloudpickle

    for name, module in list(sys.modules.items()):
        if name.startswith(PREFIX):
            cloudpickle.register_pickle_by_value(module)
