"""What a search needs of a GPU: a strong model with its caches, and beside it a weak pair that scores.

need = search_need(strong, (post, pre), new_tokens=2048, resources=resources)
resources = engine_resources(directory, settings, resources, scoring_bytes=need_of_a_pass)
"""

from pathlib import Path
from typing import Any

from cong.generation.needs import decoding_need, fitting_slots
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.models import Model
from cong.scoring.needs import logprob_need


def search_need(strong: Model, pair: tuple[Model, Model], *, new_tokens: int, resources: Resources) -> Need | None:
    """Return what one process needs; None when a model's numbers are not known."""
    scoring = logprob_need(pair, new_tokens=new_tokens, resources=resources)
    if scoring is None:
        return None
    decoding = decoding_need((strong,), new_tokens=new_tokens, resources=resources, beside_bytes=scoring.total)
    if decoding is None:
        return None
    # The engine's passes and the pair's take turns.
    working = max(decoding.working, scoring.working)
    return Need(weights=decoding.weights + scoring.weights, cache=decoding.cache, working=working)


def search_resources(strong: Model, pair: tuple[Model, Model], *, new_tokens: int, resources: Resources) -> Resources:
    """Return resources with the slots of the profile, or as many of them as fit beside the weak pair.

    Decoding is on the slot engine: vLLM takes a device for itself.
    """
    found = resources.changed(backend="slots", tensor_parallel=1)
    scoring = logprob_need(pair, new_tokens=new_tokens, resources=found)
    if found.decoding.slots == "auto" or scoring is None:
        return found
    most = fitting_slots(strong, new_tokens=new_tokens, resources=found, beside_bytes=scoring.total)
    return found if most is None else found.changed(slots=min(found.decoding.slots, most))


def engine_resources(
    strong: Path, settings: dict[str, Any], resources: Resources, *, scoring_bytes: float
) -> Resources:
    """Return resources with the slots that the free memory holds, where it is to decide; the weak pair is loaded."""
    if resources.decoding.slots != "auto" or resources.hardware.device != "cuda":
        return resources
    import torch

    from cong.decoding import Decoding
    from cong.decoding.models import common_max_context, read_config
    from cong.decoding.sizing import architecture, slots_that_fit
    from cong.models.memory import PROMPT_TOKENS

    config, decoding, itemsize = read_config(strong), Decoding(**settings), resources.hardware.itemsize
    free, _ = torch.cuda.mem_get_info()
    slots = slots_that_fit(
        [config],
        decoding=decoding,
        tokens_per_slot=min(common_max_context(config), decoding.max_new_tokens + PROMPT_TOKENS),
        itemsize=itemsize,
        free_bytes=int(free - itemsize * architecture(config).parameters - scoring_bytes),
    )
    return resources.changed(slots=slots)
