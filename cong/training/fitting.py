"""The micro-batch that fits into memory: it follows the size of the model, its vocabulary and the longest row.

A profile's micro-batch is the most; gradients are summed up over a step's micro-batches, so its losses stay the same.
"""

import dataclasses
from collections.abc import Callable

from cong.graph.need import GB
from cong.graph.resources import Resources
from cong.training.job import Job

PROCESS_BYTES = 0.7 * GB
"""What Python and the libraries take of a process beside tensors."""


def fitted(job: Job, *, need: Callable[[Resources, bool], float]) -> Job:
    """Return a job that fits into the profile's memory, if there is one; `need` gives bytes of tensors.

    The largest micro-batch that fits is taken. Where none does, the smallest, with activations computed again.
    """
    resources = job.resources
    if resources.hardware.memory_gb is None or resources.hardware.device != "cpu":
        return job
    usable = resources.hardware.memory_gb * GB - PROCESS_BYTES
    choices = [resources.changed(micro_batch=size) for size in micro_batches(job)]
    found = next((choice for choice in choices if need(choice, False) <= usable), None)
    return dataclasses.replace(job, resources=found or choices[-1], checkpointing=found is None)


def micro_batches(job: Job) -> list[int]:
    """Return the micro-batches, the largest first, of which a whole number makes up a worker's part of a step."""
    most, part = job.resources.training.micro_batch, job.schedule.global_batch_size // job.resources.training.workers
    return [size for size in range(min(most, part), 0, -1) if part % size == 0]
