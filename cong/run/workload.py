"""How many GPU-hours a plan takes and how much disk its results fill: the sum of what its stages say of themselves.

work = estimate(plan.todo, resources)
work.gpu_hours, work.disk_bytes, work.requests
print(assumptions(resources))
"""

from collections.abc import Iterable, Iterator

from cong.errors import UserError
from cong.graph.resources import Resources
from cong.graph.stage import Stage, parts_of
from cong.graph.work import Work
from cong.models import HubModel
from cong.models.work import (
    ARITHMETIC_SHARE,
    BANDWIDTH_SHARE,
    FORWARD,
    PROMPT_TOKENS,
    RESPONSE_TOKENS,
    TRAINING,
    rates,
    weight_bytes,
)


def estimate(stages: Iterable[Stage], resources: Resources) -> Work:
    """Return what stages take together, models that are downloaded for them included in the disk."""
    chosen = list(stages)
    downloads = {model for stage in chosen for model in _hub_models(stage)}
    start = Work(stages=0, disk_bytes=sum(map(weight_bytes, downloads)))
    return sum((work_of(stage, resources) for stage in chosen), start)


def _hub_models(stage: Stage) -> Iterator[HubModel]:
    """Yield the hub's models that a stage itself names, not those of its inputs."""
    queue = [stage]
    while queue:
        parts = parts_of(queue.pop())
        yield from (part for part in parts if isinstance(part, HubModel))
        queue += [part for part in parts if not isinstance(part, Stage)]


def by_kind(stages: Iterable[Stage], resources: Resources) -> dict[str, Work]:
    """Return the same per kind of stage, the largest first."""
    kinds: dict[str, Work] = {}
    for stage in stages:
        kinds[stage.name] = kinds.get(stage.name, Work(stages=0)) + work_of(stage, resources)
    return dict(sorted(kinds.items(), key=lambda item: -item[1].gpu_seconds))


def work_of(stage: Stage, resources: Resources) -> Work:
    """Return what one stage takes; raise `UserError` when its class does not say it."""
    try:
        return stage.work(resources)
    except NotImplementedError as error:
        raise UserError(str(error)) from error


def assumptions(resources: Resources) -> str:
    """Return what the numbers rest on, for a reader."""
    tflops, bandwidth = rates(resources)
    hardware = f"{tflops:g} TFLOP/s and {bandwidth:g} GB/s per GPU"
    profile = f"profile {resources.name}"
    source = profile if resources.hardware.gpu_tflops else f"an L40, for {profile} names none"
    return (
        f"{hardware} ({source}); {100 * ARITHMETIC_SHARE:g} % of the one reached in training and scoring, "
        f"{100 * BANDWIDTH_SHARE:g} % of the other in decoding; {PROMPT_TOKENS} tokens per prompt, {RESPONSE_TOKENS} a "
        f"response; training {TRAINING} and scoring {FORWARD} operations per parameter and token; weights saved in "
        "bfloat16; waiting, loading and the stages on CPUs are left out"
    )
