"""The plan as a tree, and the state of a store, as text."""

import json
from pathlib import Path

from cong.errors import UserError
from cong.graph import lease
from cong.graph.journal import read_progress
from cong.graph.plan import Plan
from cong.graph.resources import Demand, Resources
from cong.graph.stage import Stage
from cong.graph.store import RECORD, SUCCESS
from cong.launch import Job, check_resources
from cong.memory import GB, Need
from cong.terminal import describe_progress


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


def _needs(plan: Plan, resources: Resources) -> None:
    """Print per kind of stage what the one that needs most memory occupies."""
    largest: dict[str, tuple[Need, Demand]] = {}
    for stage in plan.todo:
        need = stage.memory(resources)
        if need is not None and (stage.name not in largest or need.total > largest[stage.name][0].total):
            largest[stage.name] = need, stage.demand(resources)
    if largest:
        print("\nmemory of one process, reckoned")
    for name, (need, demand) in largest.items():
        has = f" of {resources.gpu_memory_gb:g}" if resources.gpu_memory_gb else ""
        beside = f", {need.host / GB:.1f} GB of main memory" if need.host else ""
        print(f"  {name:<20} {demand!s:<15} {need.total / GB:>6.1f}{has} GB{beside}  ({need.parts})")


def show_status(root: Path) -> None:
    """Print one line per stage directory; raise `UserError` when there is no store."""
    if not root.is_dir():
        raise UserError(f"there is no store at {root}")
    counts = {"finished": 0, "running": 0, "unfinished": 0}
    for directory in sorted(path for path in root.glob("[A-Z]*/*") if path.is_dir()):
        state, text = _state(directory)
        counts[state] += 1
        print(f"{state:<11}{directory.parent.name}/{directory.name}  {text}")
    print("\n" + ", ".join(f"{count} {state}" for state, count in counts.items()))


def _duration(record: Path) -> str:
    try:
        return f"{json.loads(record.read_text())['seconds']:.1f} s"
    except (OSError, ValueError, KeyError):
        return "its record cannot be read: the next run makes it anew"


def _state(directory: Path) -> tuple[str, str]:
    if (directory / SUCCESS).exists():
        return "finished", _duration(directory / RECORD)
    holder = lease.holder(directory)
    if holder is None:
        return "unfinished", "run the experiment again to go on"
    progress = read_progress(directory / "progress.json")
    return "running", f"{describe_progress(progress)}, process {holder['pid']} on {holder['host'].split('/')[0]}"
