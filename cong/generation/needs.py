"""What the stages that decode need of a GPU, from their models and a profile.

decoding_need((weak_aligned, weak), new_tokens=2048, resources=load_profile("l40x4"))
"""

from cong.generation.backends import can_share
from cong.graph.need import GB, Need
from cong.graph.resources import Resources
from cong.models import LocalModel, Model, architectures_of, memory, shares_base
from cong.models.architecture import Architecture


def without_adapter(models: tuple[Model, ...]) -> tuple[Model, ...]:
    """Put its base, the last model, in the place of an adapter, which has no numbers of its own."""
    return tuple(models[-1] if is_adapter(model) else model for model in models)


def is_adapter(model: Model) -> bool:
    """Return whether a model is the directory of a LoRA adapter, of which no stage knows the base."""
    return isinstance(model, LocalModel) and model.is_adapter


def decoding_need(
    models: tuple[Model, ...], *, new_tokens: int, resources: Resources, beside_bytes: float = 0.0
) -> Need | None:
    """Return what an actor needs that decodes with these models; None when their numbers are not known.

    A pair is pi_r and pi_ref; an anchor stands before them. Where free memory decides on the slots, `beside_bytes` of
    it are taken by what else the actor holds.
    """
    known = architectures_of(without_adapter(models))
    if known is None:
        return None
    load = {"new_tokens": new_tokens, "itemsize": resources.hardware.itemsize}
    shared, slots = _is_shared(models, resources), resources.decoding.slots
    if slots == "auto":
        slots = _fitting(known, new_tokens=new_tokens, resources=resources, beside_bytes=beside_bytes, shared=shared)
    return memory.decoding(known, slots=slots, shared=shared, **load).over(resources.decoding.tensor_parallel)


def fitting_slots(
    models: tuple[Model, ...], *, new_tokens: int, resources: Resources, beside_bytes: float = 0.0
) -> int | None:
    """Return how many slots fit a GPU of the profile beside so many bytes; None when a size is not known."""
    known = architectures_of(without_adapter(models))
    if known is None or resources.hardware.gpu_memory_gb is None:
        return None
    shared = _is_shared(models, resources)
    return _fitting(known, new_tokens=new_tokens, resources=resources, beside_bytes=beside_bytes, shared=shared)


def _is_shared(models: tuple[Model, ...], resources: Resources) -> bool:
    """Return whether the last two models, a pair, decode with one set of weights."""
    return len(models) > 1 and shares_base(*models[-2:]) and (is_adapter(models[-2]) or can_share(resources))


def _fitting(
    known: list[Architecture], *, new_tokens: int, resources: Resources, beside_bytes: float, shared: bool
) -> int:
    """Return the slots that "auto" finds where the GPU's memory is known, and those of a CPU elsewhere."""
    if resources.hardware.gpu_memory_gb is None:
        return memory.CPU_SLOTS
    load = {"new_tokens": new_tokens, "itemsize": resources.hardware.itemsize}
    empty = memory.decoding(known, slots=memory.MOST_SLOTS, shared=shared, **load)
    usable = memory.USABLE_GPU * resources.decoding.tensor_parallel * resources.hardware.gpu_memory_gb * GB
    tokens = memory.context_tokens(known, new_tokens=new_tokens)
    free = usable - empty.weights - empty.working - beside_bytes
    return memory.slots_in(known, tokens=tokens, free_bytes=free, **load)
