"""The plan as a tree, as text."""

import textwrap

from cong.graph.demand import Demand
from cong.graph.need import GB, Need
from cong.graph.plan import Plan
from cong.graph.resources import Resources
from cong.graph.stage import Stage
from cong.run.checks import check_resources
from cong.run.job import Job
from cong.run.workload import assumptions, by_kind, estimate


def show(job: Job) -> None:
    """Print every cell with the stages below it, each stage in full once, then totals and the demand on resources."""
    check_resources(job)
    seen: set[str] = set()
    for cell in job.cells:
        print(cell.name)
        _branch(cell.stage, job, seen, prefix="", last=True)
    _totals(job.plan, job)


def _branch(stage: Stage, job: Job, seen: set[str], *, prefix: str, last: bool) -> None:
    repeated = stage.fingerprint in seen
    seen.add(stage.fingerprint)
    state = "see above" if repeated else job.plan.state(stage)
    demand = f"  ({stage.demand(job.resources)})" if state.startswith("to run") else ""
    print(f"{prefix}{'└─' if last else '├─'} {stage.title}  {stage.fingerprint[:8]}  {state}{demand}")
    if repeated:
        return
    below = prefix + ("   " if last else "│  ")
    for number, item in enumerate(stage.inputs, start=1):
        _branch(item, job, seen, prefix=below, last=number == len(stage.inputs))


def _totals(plan: Plan, job: Job) -> None:
    print(f"\n{len(job.cells)} cells, {len(plan.stages)} stages: {len(plan.todo)} to run")
    if plan.todo:
        print(f"largest stage needs {plan.peak(job.resources)}; profile {job.resources.name}")
        _needs(plan, job.resources)
        if job.scale.gpu:
            _hours(plan, job.resources)
            for line in job.experiment.remarks(job.cells, job.resources):
                print(line)


def _hours(plan: Plan, resources: Resources) -> None:
    """Print per kind of stage how many GPU-hours its stages take, and what all of them leave on disk."""
    total = estimate(plan.todo, resources)
    print("\nGPU-hours, estimated")
    for name, found in by_kind(plan.todo, resources).items():
        if found.gpu_seconds:
            print(f"  {name:<20} {found.gpu_hours:>9,.0f}  ({found.stages} stages)")
    print(f"  {'all':<20} {total.gpu_hours:>9,.0f}")
    print(f"disk, estimated: {total.disk_bytes / GB:,.0f} GB, downloaded models included")
    if total.requests:
        print(f"judges over HTTP: {total.requests:,} requests at most")
    print("assumed: " + textwrap.fill(assumptions(resources), width=110, subsequent_indent="  "))


def _needs(plan: Plan, resources: Resources) -> None:
    """Print per kind of stage what the one that needs most memory occupies."""
    largest: dict[str, tuple[Need, Demand]] = {}
    for stage in plan.todo:
        need = stage.memory(resources)
        if need is not None and (stage.name not in largest or need.total > largest[stage.name][0].total):
            largest[stage.name] = need, stage.demand(resources)
    if largest:
        print("\nmemory of one process, estimated")
    for name, (need, demand) in largest.items():
        has = f" of {resources.hardware.gpu_memory_gb:g}" if resources.hardware.gpu_memory_gb else ""
        beside = f", {need.host / GB:.1f} GB of main memory" if need.host else ""
        parts = f"  ({need.parts})" if need.parts else ""
        print(f"  {name:<20} {demand!s:<15} {need.total / GB:>6.1f}{has} GB{beside}{parts}")
