"""Runs an experiment: computes the stages that its cells lack, and writes its report."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.errors import NothingLeft
from cong.experiment import Cell, Results, collect
from cong.graph.plan import Plan, make_plan
from cong.graph.runner import Runner, StageFailed
from cong.run import pages
from cong.run.job import Job
from cong.run.records import recorded
from cong.run.session import Session, carry_out
from cong.run.sweep import Sweep

if TYPE_CHECKING:
    from cong.report import Report


def run(job: Job) -> Path:
    """Compute what is missing and write the report; return its page."""
    started = time.monotonic()
    written = carry_out(_Run(job=job))
    made = sum(job.store.is_complete(stage) for stage in job.plan.todo)
    seconds = time.monotonic() - started
    print(f"{made} stages computed, {len(job.plan.stages) - len(job.plan.todo)} found in the store, {seconds:.1f} s")
    return written.page


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The cells of an experiment, by the runner or, for a grid on a cluster, by trials."""

    job: Job

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def params(self) -> dict[str, Any]:
        return self.job.params | {axis: ",".join(map(str, values)) for axis, values in self.job.grid.items()}

    @property
    def cells(self) -> list[Cell]:
        return self.job.cells

    @property
    def total(self) -> int:
        return len(self.job.plan.todo)

    def recorded(self) -> AbstractContextManager[None]:
        return recorded(self.job)

    def compute(self, session: Session) -> None:
        job, runner = self.job, self._runner(session)
        try:
            runner.run(job.plan)
            while (plan := remade_inputs(job)) is not None:
                runner.run(plan)
        except StageFailed as failed:
            if job.unfinished or not all(isinstance(error, NothingLeft) for _, error in failed.failures):
                raise

    def _runner(self, session: Session) -> Runner | Sweep:
        job, run_id = self.job, session.tracker.run_id
        if job.grid and job.resources.cluster.ray and session.capacity is not None:
            return Sweep(
                store=job.store,
                resources=job.resources,
                capacity=session.capacity,
                observers=session.observers,
                tracking_run=run_id,
            )
        return Runner(store=job.store, resources=job.resources, observers=session.observers, tracking_run=run_id)

    def report(self) -> "tuple[Results, Report]":
        written = pages.report(self.job)
        return collect(self.job.cells, self.job.store), written


def remade_inputs(job: Job) -> Plan | None:
    """Return what is left of a run: finished stages whose inputs had to be computed again and came out otherwise."""
    if not job.plan.endangers:
        return None
    plan = make_plan(job.plan.targets, job.store)
    return plan if plan.stale else None
