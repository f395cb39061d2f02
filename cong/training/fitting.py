"""The tokens at a time that fit into memory: they follow the size of the model, its vocabulary and the longest row.

A profile's `micro_tokens` are the most. Gradients are summed up over a step's micro-batches, so losses stay the same.
"""

import dataclasses
from collections.abc import Callable

from cong.graph.need import GB
from cong.graph.resources import Resources
from cong.training.job import Job

PROCESS_BYTES = 1.0 * GB
"""What Python, the libraries and the gaps between tensors take of a process: 1.0 GB in trainings of SmolLM2-135M."""


def fitted(job: Job, *, longest: int, need: Callable[[Resources, bool], float]) -> Job:
    """Return a job that fits into the profile's memory, if there is one; `need` gives bytes of tensors.

    The most tokens that fit are taken. Where none do, those of the `longest` row, with activations computed again.
    """
    resources = job.resources
    if resources.hardware.memory_gb is None or resources.hardware.device != "cpu":
        return job
    usable = resources.hardware.memory_gb * GB - PROCESS_BYTES
    choices = [resources.changed(micro_tokens=count) for count in micro_tokens(job, longest=longest)]
    found = next((choice for choice in choices if need(choice, False) <= usable), None)
    return dataclasses.replace(job, resources=found or choices[-1], checkpointing=found is None)


def micro_tokens(job: Job, *, longest: int) -> list[int]:
    """Return the numbers of tokens to choose from: the profile's, and halves of it down to the longest row."""
    counts = [max(job.resources.training.micro_tokens, longest)]
    while counts[-1] // 2 >= longest:
        counts.append(counts[-1] // 2)
    return counts
