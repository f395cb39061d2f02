"""How many rows fit a device: what a slot costs in bytes, and how many slots the free memory holds.

slots = slots_that_fit(configs, decoding=decoding, tokens_per_slot=2560, itemsize=2, free_bytes=40 << 30)
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from cong.decoding.types import Decoding

MOST_SLOTS = 512
"""Beyond this the arithmetic of a step, not the reading of the weights, takes the time."""
CPU_SLOTS = 64
PROMPT_TOKENS = 512
"""Room for a prompt where nothing is known of the prompts; longer ones make the cache grow."""
USABLE = 0.85
"""Share of the free memory that is given out; prefill passes and fragments need the rest."""
SCORE_COPIES = 8
"""Tensors of a row's vocabulary in float32 that are alive at once in a step."""


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
    slot = sum(
        tokens_per_slot * cache_bytes_per_token(config, itemsize=itemsize)
        + SCORE_COPIES * 4 * config.get_text_config().vocab_size
        for config in configs
    )
    slot += state_bytes_per_slot(decoding, vocab_size=max(config.get_text_config().vocab_size for config in configs))
    return max(1, min(MOST_SLOTS, int(USABLE * free_bytes) // slot))


def cache_bytes_per_token(config: PreTrainedConfig, *, itemsize: int) -> int:
    """Keys and values of one token in all layers."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * heads * width * itemsize


def state_bytes_per_slot(decoding: Decoding, *, vocab_size: int) -> int:
    """Tokens, two log-probabilities and a uniform number per step, and the mask of seen tokens."""
    return (decoding.max_new_tokens + 1) * (8 + 4 + 4 + 8) + vocab_size
