"""Attention of one query token per row over grouped key-value heads, without copying the heads.

Hugging Face's SDPA path repeats every key-value head for the query heads that share it, which reads and writes the
whole cache several times per token. With one query token per row, the query heads of a group can stand in the place
of query positions instead. Registered through the library's own extension point, and used for decoding steps only.

    with grouped_attention(model):
        model(input_ids=token_B1, attention_mask=mask_B11T, ...)
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "cong_grouped"


def grouped_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Attention for queries (B, H, 1, D), keys and values (B, K, T, D), and an additive mask (B, 1, 1, T)."""
    batch, heads, queries, width = query.shape
    shared, columns = key.shape[1], key.shape[2]
    if queries != 1 or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    output_BKGD = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(batch, shared, heads // shared, width),
        key,
        value,
        attn_mask=attention_mask.expand(batch, 1, heads // shared, columns),
        scale=scaling,
    )
    return output_BKGD.reshape(batch, 1, heads, value.shape[3]), None


AttentionInterface.register(NAME, grouped_attention_forward)


@contextmanager
def grouped_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use grouped attention in the forward passes inside; a model that does not run on SDPA is left as it is."""
    config = model.config
    before = config._attn_implementation
    if before != "sdpa":
        yield
        return
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
