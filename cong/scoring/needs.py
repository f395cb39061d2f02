"""What a process that scores needs of a GPU, from the models of its reward and a profile."""

from cong.generation.needs import without_adapter
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.models import Model, architecture_of, architectures_of, memory, shares_base
from cong.scoring.scorers import BATCH


def logprob_need(models: tuple[Model, ...], *, new_tokens: int, resources: Resources) -> Need | None:
    """Return what a teacher-forced pass of one model, or of a pair, needs; None when their sizes are not known."""
    known = architectures_of(without_adapter(models))
    if known is None:
        return None
    longest = memory.context_tokens(known, new_tokens=new_tokens)
    # A pass takes rows as long as their padded responses stay within `SCORED_TOKENS`; each has its prompt beside it.
    scored = max(new_tokens, memory.SCORED_TOKENS[resources.hardware.device])
    rows = min(BATCH, scored // new_tokens)
    shared = len(models) > 1 and shares_base(*models)
    itemsize = resources.hardware.itemsize
    return memory.scoring(
        known, tokens=rows * longest, scored=scored, longest=longest, itemsize=itemsize, shared=shared
    )


def classifying_need(model: Model, *, new_tokens: int, resources: Resources) -> Need | None:
    """Return what a reward model needs; None when its size is not known."""
    known = architecture_of(model)
    if known is None:
        return None
    longest = memory.context_tokens([known], new_tokens=new_tokens)
    tokens = min(BATCH * longest, max(longest, memory.CLASSIFIED_TOKENS[resources.hardware.device]))
    return memory.classifying(known, tokens=tokens, itemsize=resources.hardware.itemsize)
