"""What a search needs of a GPU: a strong model with its caches, and beside it a weak pair that scores.

need = search_need(strong, (post, pre), new_tokens=2048, resources=resources)
resources = engine_resources(directory, settings, resources, scoring_bytes=need_of_a_pass)
"""

from pathlib import Path
from typing import Any

from cong.generation.needs import decoding_need, fitting_slots, without_adapter
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.models import Model, architecture_of, architectures_of, memory, shares_base
from cong.scoring.scorers import BATCH

SCORED_TOKENS = {"cpu": memory.SCORED_TOKENS["cpu"], "cuda": 2048}
"""Most padded response tokens of one pass of the weak pair: their logits are to be small beside a strong model."""


def scoring_need(pair: tuple[Model, Model], *, new_tokens: int, resources: Resources) -> Need | None:
    """Return what the weak pair needs beside the strong model; None when its numbers are not known."""
    known = architectures_of(without_adapter(pair))
    if known is None:
        return None
    longest = memory.context_tokens(known, new_tokens=new_tokens)
    scored = max(new_tokens, SCORED_TOKENS[resources.hardware.device])
    # A long response stands alone in a pass; many short ones have their prompts beside them.
    tokens = max(longest, BATCH * (memory.PROMPT_TOKENS + scored // BATCH))
    itemsize, shared = resources.hardware.itemsize, shares_base(*pair)
    return memory.scoring(known, tokens=tokens, scored=scored, longest=longest, itemsize=itemsize, shared=shared)


def search_need(strong: Model, pair: tuple[Model, Model], *, new_tokens: int, resources: Resources) -> Need | None:
    """Return what one process needs; None when a model's numbers are not known."""
    beside = _beside(strong, pair, new_tokens=new_tokens, resources=resources)
    decoding = decoding_need((strong,), new_tokens=new_tokens, resources=resources, beside_bytes=beside)
    scoring = scoring_need(pair, new_tokens=new_tokens, resources=resources)
    if decoding is None or scoring is None:
        return None
    working = max(decoding.working, scoring.working)
    return Need(weights=decoding.weights + scoring.weights, cache=decoding.cache, working=working)


def search_resources(strong: Model, pair: tuple[Model, Model], *, new_tokens: int, resources: Resources) -> Resources:
    """Return resources with the slots of the profile, or as many of them as fit beside the weak pair.

    Decoding is on the slot engine: vLLM takes a device for itself.
    """
    found = resources.changed(backend="slots", tensor_parallel=1)
    if found.decoding.slots == "auto":
        return found
    beside = _beside(strong, pair, new_tokens=new_tokens, resources=found)
    most = fitting_slots((strong,), new_tokens=new_tokens, resources=found, beside_bytes=beside)
    return found if most is None else found.changed(slots=min(found.decoding.slots, most))


def _beside(strong: Model, pair: tuple[Model, Model], *, new_tokens: int, resources: Resources) -> float:
    """Return the bytes that the weak pair takes from the engine; its passes and the engine's take turns."""
    scoring, own = scoring_need(pair, new_tokens=new_tokens, resources=resources), architecture_of(strong)
    if scoring is None or own is None:
        return 0.0
    itemsize = resources.hardware.itemsize
    prefill = memory.decoding([own], slots=memory.MOST_SLOTS, new_tokens=new_tokens, itemsize=itemsize).working
    return scoring.weights + max(0.0, scoring.working - prefill)


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

    config, decoding, itemsize = read_config(strong), Decoding(**settings), resources.hardware.itemsize
    free, _ = torch.cuda.mem_get_info()
    slots = slots_that_fit(
        [config],
        decoding=decoding,
        tokens_per_slot=min(common_max_context(config), decoding.max_new_tokens + memory.PROMPT_TOKENS),
        itemsize=itemsize,
        free_bytes=int(free - itemsize * architecture(config).parameters - scoring_bytes),
    )
    return resources.changed(slots=slots)
