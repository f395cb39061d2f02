"""What is looked at before anything runs: every mistake that can be seen is one line, and costs nothing."""

import os
import sys

from cong.errors import UserError
from cong.graph.plan import check_makers
from cong.models.memory import check_fits
from cong.models.mirror import undeclared
from cong.run.job import Job


def check(job: Job) -> None:
    """Look at the profile, the devices, the store and all stages that are to run; raise `UserError`."""
    check_resources(job)
    check_devices(job)
    job.store.prepare()
    check_stages(job)


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
    if job.resources.hardware.device == "cuda" or not job.scale.gpu or os.environ.get("CONG_MIRROR"):
        return
    cuda = job.resources.changed(device="cuda")
    wanting = next((stage for stage in job.plan.todo if stage.demand(cuda).gpus), None)
    if wanting is not None:
        raise UserError(
            f"{wanting.title} needs a GPU at scale {job.scale.name}, and profile {job.resources.name} has "
            "device = 'cpu': choose a profile with GPUs, such as --profile l40x4, or gpu24x1 for a single one"
        )


def check_stages(job: Job) -> None:
    """Let the stages that are to run look at what lies outside of the graph; raise `UserError`."""
    check_makers(job.plan, job.store)
    for line in undeclared(job.plan.stages):
        print(f"note: {line}", file=sys.stderr, flush=True)
    for stage in job.plan.todo:
        stage.check()
        stage.check_execution(job.resources)
