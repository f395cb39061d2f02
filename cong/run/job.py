"""A job: an experiment with everything that was chosen on the command line, planned against a store."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cong.experiment import Cell, Experiment, load
from cong.experiment.grid import accepted_cells, chosen_grid, grid_cells
from cong.graph.plan import Plan, make_plan
from cong.graph.resources import Resources
from cong.graph.store import StageStore
from cong.graph.userfiles import guarded
from cong.run.naming import name_in
from cong.scales import Scale
from cong.scales import scale as scale_named


@dataclass(frozen=True, kw_only=True)
class Job:
    """An experiment with everything that was chosen on the command line."""

    name: str
    """The experiment's name in the store, in the tracker and in reports."""
    experiment: Experiment
    cells: list[Cell]
    scale: Scale
    settings: dict[str, Any]
    grid: dict[str, tuple[Any, ...]]
    resources: Resources
    store: StageStore
    plan: Plan

    @property
    def params(self) -> dict[str, Any]:
        """Return what the tracker shows of the choice, but for what is searched or swept."""
        return {
            "experiment": self.experiment.name,
            "scale": self.scale.name,
            "profile": self.resources.name,
            **self.settings,
        }

    @property
    def unfinished(self) -> list[str]:
        """Return the names of the cells that have no result and should have one."""
        return [cell.name for cell in self.cells if not cell.may_lack and not self.store.is_complete(cell.stage)]

    def cells_at(self, point: Mapping[str, Any]) -> list[Cell]:
        """Return the cells of the experiment at a point of its axes; theirs hold the point."""
        cells = self.experiment.cells(self.scale, {**self.settings, **point})
        return [Cell(stage=cell.stage, axes={**point, **cell.axes}, may_lack=cell.may_lack) for cell in cells]


def prepare(
    path: Path,
    *,
    scale: str | None,
    assignments: list[str],
    resources: Resources,
    store: StageStore,
    force: tuple[str, ...] = (),
    grid: tuple[str, ...] = (),
    own_grid: bool = True,
) -> Job:
    """Load an experiment and plan it; raise `UserError` for every mistake that can be seen without running.

    `assignments` and `grid` hold `AXIS=VALUE` and `AXIS=VALUES`; an axis given here replaces the file's own grid of it,
    which counts unless `own_grid` is false: then the grid is that of a search, without points that are refused.
    """
    experiment = load(path)
    chosen = scale_named(scale or experiment.scale)
    settings = experiment.settings(assignments)
    values = chosen_grid(experiment, settings, grid, own=experiment.grid if own_grid else ())
    cells = (grid_cells if own_grid else accepted_cells)(experiment, chosen, settings, values)
    planned = job_of(experiment, scale=chosen, cells=cells, resources=resources, store=store, force=force)
    return replace(planned, settings=settings, grid=values)


def job_of(
    experiment: Experiment,
    *,
    scale: Scale,
    cells: list[Cell],
    resources: Resources,
    store: StageStore,
    force: tuple[str, ...] = (),
) -> Job:
    """Plan the cells of an experiment; raise `UserError` for what its file does wrong."""
    path = experiment.path
    plan = guarded(path, lambda: make_plan({cell.name: cell.stage for cell in cells}, store, force=force))
    return Job(
        name=name_in(store.root, base=f"{experiment.name}-{scale.name}", path=path),
        experiment=experiment,
        cells=cells,
        scale=scale,
        settings={},
        grid={},
        resources=resources,
        store=store,
        plan=plan,
    )
