"""What a run leaves in the store for `cong status`: experiment, cells, stages, who runs it, how it ended.

    {store}/.cong/{experiment}-{scale}/{when}-{process}/
        run.json       the experiment, its cells and their stages; small, replaced as a whole
        .lease.json    the heartbeat of the process that runs it (see cong/graph/store/lease.py)

A run writes into a directory of its own, so two runs of one experiment at once never touch each other's; what earlier
ones left is taken away when the next begins.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.errors import UserError
from cong.graph.demand import count
from cong.graph.journal import replace_text
from cong.graph.runner import StageFailed, first_line
from cong.graph.stage import Stage
from cong.graph.store import lease
from cong.run.naming import RUNS, claim

if TYPE_CHECKING:
    from cong.run.job import Job

RUN = "run.json"
JOB_ID = "CONG_JOB_ID"
"""Environment variable by which a run knows under which id it was submitted to a cluster."""
_FORGET_SECONDS = 86_400.0


@contextmanager
def recorded(job: "Job") -> Iterator[None]:
    """Leave a record of the run in the store, and say in it how the run ended."""
    family = job.store.root / RUNS / job.name
    begun = time.time()
    claim(job.store.root, name=job.name, path=job.experiment.path)
    directory = family / f"{time.time_ns()}-{os.getpid()}"
    with lease.hold(directory):
        _forget_ended(family, but=directory)
        record = describe(job, begun=begun)
        _write(directory, record)
        how = "finished"
        try:
            yield
        except Exception as error:
            how = f"failed: {_reason(error)}"
            raise
        except BaseException:
            how = "interrupted"
            raise
        finally:
            _write(directory, record | {"ended": time.time(), "how": how})
            job.store.share(directory / RUN, name=f"{RUNS}/{job.name}/last/{RUN}")


def describe(job: "Job", *, begun: float) -> dict[str, Any]:
    """Return the record of a run that begins: stages by number, inputs first, and cells that name their last one."""
    number = {stage.fingerprint: index for index, stage in enumerate(job.plan.stages)}
    return {
        "name": job.name,
        "experiment": job.experiment.name,
        "title": job.experiment.title,
        "scale": job.scale.name,
        "profile": job.resources.name,
        "settings": job.settings,
        "grid": job.grid,
        "cells": [
            {
                "axes": cell.axes,
                "stage": number[cell.stage.fingerprint],
                "model": _model_number(cell.stage.evaluated_model, number),
                "may_lack": cell.may_lack,
            }
            for cell in job.cells
        ],
        "stages": [
            {
                "directory": f"{stage.name}/{stage.slug}",
                "fingerprint": stage.fingerprint,
                "inputs": [number[item.fingerprint] for item in stage.inputs],
            }
            for stage in job.plan.stages
        ],
        "process": lease.this_process(),
        "job": os.environ.get(JOB_ID),
        "begun": begun,
        "ended": None,
        "how": None,
    }


def _model_number(model: Any, number: dict[str, int]) -> int | None:
    """Return the stage that trained what a cell evaluates; None where no stage of the run did."""
    return number.get(model.fingerprint) if isinstance(model, Stage) else None


def _reason(error: Exception) -> str:
    if isinstance(error, StageFailed):
        # Each of them says in its own directory what went wrong.
        return count(len(error.failures), "stage")
    return str(error) if isinstance(error, UserError) else first_line(error)


def _write(directory: Path, record: dict[str, Any]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    replace_text(directory / RUN, json.dumps(record))


def _forget_ended(family: Path, *, but: Path) -> None:
    """Take away the runs that ended or died; of a process on another host that is known only after a long silence."""
    for directory in filter(Path.is_dir, family.iterdir()):
        # Without a record a run is only just beginning: it takes its lease first.
        if directory != but and (directory / RUN).exists() and not _may_live(directory):
            shutil.rmtree(directory, ignore_errors=True)


def _may_live(directory: Path) -> bool:
    return lease.holder(directory) is not None and (lease.silence(directory) or 0.0) < _FORGET_SECONDS
