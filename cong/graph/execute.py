"""One stage, executed once: lease, run, record, `_SUCCESS`. This runs in whatever process the stage was given to."""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from cong import __version__
from cong.graph import fingerprint as fp
from cong.graph.environment import stage_environment
from cong.graph.journal import FAILURE, replace_text
from cong.graph.naming import Definition
from cong.graph.resources import Resources
from cong.graph.stage import SCRATCH, Context, Stage
from cong.graph.store import BEGUN, SUCCESS, StageStore

LOG = ".log.txt"
BASIS = ".basis"
COMMIT = "CONG_COMMIT"
PACKAGES = ("torch", "transformers", "trl", "ray", "deepspeed", "datasets", "accelerate", "mlflow", "numpy")


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A stage, and everything that its process must know to run it."""

    stage: Stage
    store: StageStore
    resources: Resources
    provenance: dict[str, Any]
    tracking_run: str | None = None
    forced: bool = False
    maker: Definition | None = None
    """What the record says of the stage's class; a worker does not know its text."""


def execute(task: Assignment) -> str:
    """Run a stage unless it is complete. Return `made`, or `hit` when this or another process had made it before."""
    stage, store = task.stage, task.store
    if not task.forced and store.is_complete(stage):
        return "hit"
    before = store.edition(stage)
    directory = store.directory(stage)
    with store.hold(stage, while_waiting=lambda: _finished_since(task, before)) as held:
        if held is None or _finished_since(task, before):
            return "hit"
        store.fetch(stage.inputs)
        _clear_the_way(task, directory)
        used = {item.fingerprint: store.generation(item) for item in stage.inputs}
        context = Context(
            out=directory,
            resources=stage.execution(task.resources),
            root=store.root,
            locate=store.directory,
        )
        context.progress_path.unlink(missing_ok=True)
        (directory / FAILURE).unlink(missing_ok=True)
        started = time.time()
        with stage_environment(further=context.resources.cluster.let_through):
            stage.run(context)
        context.progress_path.unlink(missing_ok=True)
        held.check()
        record = _record(task, context, started=started) | {"input_generations": used}
        store.publish(stage, record, check=held.check)
        # Only now is what a rerun would have needed of no use.
        shutil.rmtree(directory / SCRATCH, ignore_errors=True)
    return "made"


def _finished_since(task: Assignment, before: Any) -> bool:
    if task.forced and task.store.edition(task.stage) in (None, before):
        return False
    return task.store.is_complete(task.stage)


def _clear_the_way(task: Assignment, directory: Path) -> None:
    """Move away what a finished stage left that is corrupt or is to be recomputed; unfinished work is continued."""
    task.store.claim_place(task.stage)
    basis = _basis(task)
    begun = directory / BASIS
    finished = (directory / SUCCESS).exists()
    if finished or task.forced or (begun.exists() and begun.read_text() != basis):
        task.store.discard(task.stage, but=(".lease", LOG, BEGUN))
    replace_text(begun, basis)


def _basis(task: Assignment) -> str:
    """Return what unfinished work stands on beside the fingerprint: the content of the inputs, and the precision."""
    digest = hashlib.sha256(task.resources.hardware.dtype.encode())
    for stage in task.stage.inputs:
        digest.update((task.store.directory(stage) / SUCCESS).read_bytes())
    return digest.hexdigest()


def _record(task: Assignment, context: Context, *, started: float) -> dict[str, Any]:
    seconds = time.time() - started
    stage, demand = task.stage, task.stage.demand(task.resources)
    return {
        "stage": stage.name,
        "version": stage.VERSION,
        "label": stage.label(),
        "fingerprint": stage.fingerprint,
        "config": fp.fields_of(stage),
        "inputs": [str(Path(item.name) / item.slug) for item in stage.inputs],
        "results": context.results,
        "started": started,
        "seconds": seconds,
        "cpu_seconds_reserved": seconds * demand.cpus,
        "gpu_seconds": seconds * demand.gpus,
        "resources": asdict(context.resources),
        "tracking_run": task.tracking_run,
        "class": task.maker,
        **task.provenance,
    }


@cache
def provenance() -> dict[str, Any]:
    """Return the commit and the versions of what computes: the same for all stages of a run."""
    return {"commit": commit(), "versions": _versions(), "python": platform.python_version(), "host": platform.node()}


def commit() -> str | None:
    """Return the commit of `cong`'s own source, when that is known."""
    here = Path(__file__).resolve().parent
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        run = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
                             cwd=here, capture_output=True, text=True, check=True)  # fmt: skip
        return run.stdout.strip()
    # What was packed and submitted to a cluster is no checkout; who packed it knew the commit.
    return os.environ.get(COMMIT)


def _versions() -> dict[str, str]:
    found = {"cong": __version__}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@contextlib.contextmanager
def output_to(path: Path) -> Generator[None]:
    """Send everything that this process and its children write to the terminal into the file `path` instead."""
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = [os.dup(1), os.dup(2)]
    with path.open("ab") as file:
        _flush()
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        try:
            yield
        finally:
            _flush()
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)
                os.close(original)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
