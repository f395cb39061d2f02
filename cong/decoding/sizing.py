"""How many rows fit a device: what a slot costs in bytes, and how many slots the free memory holds.

slots = slots_that_fit(configs, decoding=decoding, tokens_per_slot=2560, itemsize=2, free_bytes=40 << 30)
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from cong.decoding.types import Decoding
from cong.models.architecture import NAMES, Architecture, from_config
from cong.models.memory import CPU_SLOTS, PROMPT_TOKENS, slots_in

USABLE = 0.85
"""Share of the free memory that is given out; prefill passes and fragments need the rest."""
_NAMES = (
    *NAMES, *(other for names in NAMES.values() for other in names), "head_dim", "vocab_size", "tie_word_embeddings",
    "model_type", "attention_bias", "multi_query", "new_decoder_architecture",
)  # fmt: skip


def default_slots(models: Sequence[PreTrainedModel], *, decoding: Decoding, max_context: int) -> int:
    """Slots for the device that the models lie on: what its free memory holds, or 64 on a CPU."""
    device = models[0].device
    if device.type != "cuda":
        return CPU_SLOTS
    free_bytes, _ = torch.cuda.mem_get_info(device)
    reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return slots_that_fit(
        [model.config for model in models],
        decoding=decoding,
        tokens_per_slot=min(max_context, decoding.max_new_tokens + PROMPT_TOKENS),
        itemsize=models[0].dtype.itemsize,
        free_bytes=free_bytes + reusable,
    )


def slots_that_fit(
    configs: Sequence[PreTrainedConfig], *, decoding: Decoding, tokens_per_slot: int, itemsize: int, free_bytes: int
) -> int:
    """Largest number of slots in [1, 512] whose cache, scores and bookkeeping fit the usable memory."""
    return slots_in(
        [architecture(config) for config in configs],
        tokens=tokens_per_slot,
        new_tokens=decoding.max_new_tokens,
        itemsize=itemsize,
        free_bytes=USABLE * free_bytes,
    )


def architecture(config: PreTrainedConfig) -> Architecture:
    """Return a loaded configuration in numbers, whatever its class calls them."""
    text = config.get_text_config()
    found = from_config({name: getattr(text, name, None) for name in _NAMES})
    if found is None:
        raise ValueError(
            f"{type(text).__name__} states no numbers of layers, heads, width and vocabulary that are known"
        )
    return found
