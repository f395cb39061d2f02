"""Attention of one query token per row over grouped key-value heads, without copying the heads.

Hugging Face's SDPA path repeats every key-value head for the query heads that share it, which reads and writes the
whole cache several times per token. With one query token per row, the query heads of a group can stand in the place
of query positions instead. Registered through the library's own extension point, and used for decoding steps only.

    with grouped_attention(model):
        model(input_ids=token_B1, attention_mask=mask_B11T, ...)
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from cong.decoding.bands import Band
from cong.decoding.cache import StepPlace
from cong.decoding.varlen import kernel, row_attention

NAME = "cong_grouped"


def grouped_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    sliding_window: int | None = None,
    place: StepPlace | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Attention for queries (B, H, 1, D), keys and values (B, K, T, D), and an additive mask (B, 1, 1, T)."""
    if place is None or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if place.length_B is not None:
        reading = {"length_B": place.length_B, "scaling": scaling, "window": sliding_window}
        return row_attention(query, key, value, **reading, attend=kernel()), None
    return _by_bands(query, key, value, attention_mask, scaling=scaling, bands=place.bands), None


def _by_bands(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float | None, bands: Sequence[Band]
) -> Tensor:
    """Attention (B, 1, H, D) that reads the rows of every band as far as its columns."""
    batch, heads, _, width = query.shape
    shared, columns = key.shape[1], key.shape[2]
    query_BKGD = query.reshape(batch, shared, heads // shared, width)
    mask_B1GT = mask.expand(batch, 1, heads // shared, columns)
    rows = [band.rows for band in bands]
    parts = zip(*(states.split(rows) for states in (query_BKGD, key, value, mask_B1GT)), strict=True)
    outputs = [
        torch.nn.functional.scaled_dot_product_attention(
            q, k[:, :, : band.columns], v[:, :, : band.columns], attn_mask=m[..., : band.columns], scale=scaling
        )
        for (q, k, v, m), band in zip(parts, bands, strict=True)
    ]
    output_BKGD = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return output_BKGD.reshape(batch, 1, heads, value.shape[3])


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
