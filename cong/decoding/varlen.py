"""Attention of one query token per row that reads a row's own columns of the cache and no others, on CUDA.

`torch.nn.attention.varlen` takes the keys of all rows as one list of lines, with every row's first line and number of
lines. A slot cache, shape (slots, heads, capacity, width), is such a list as it lies in memory: from one line to the
next it goes on by `width`, from head to head by `capacity * width`, from row to row by `heads * capacity` lines. So
nothing is copied, and the columns behind a row's length are not read.

The kernel exists for float16 and bfloat16 on CUDA only. Before an engine uses it, `agrees` tries it on a few rows of
that engine's shape against PyTorch's own attention.
"""

import inspect
import logging
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cong.models.architecture import Architecture

Attend = Callable[..., Any]
"""`torch.nn.attention.varlen.varlen_attn`, or what stands for it."""

TOLERANCE = 0.03
"""Of outputs near 1, in the coarser of the two dtypes; a wrong line or length is off by far more."""


def row_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    length_B: Tensor,
    scaling: float | None,
    window: int | None,
    attend: Attend,
) -> Tensor:
    """Return the attention (B, 1, H, D) of queries (B, H, 1, D) over the first `length_B` columns of their own rows.

    `key` and `value` are views (B, K, T, D) of a cache, and H is a multiple of K; `length_B` is int32 and at most T.
    A window leaves the last so many of them.
    """
    batch, _, _, _ = query.shape
    row_B1 = torch.arange(batch + 1, dtype=torch.int32, device=query.device)
    output_BHD = attend(
        query.squeeze(2),
        _lines(key),
        _lines(value),
        row_B1,
        row_B1 * (key.stride(0) // key.stride(2)),
        1,
        key.shape[2],
        scale=scaling,
        window_size=(-1, -1) if window is None else (window - 1, 0),
        seqused_k=length_B,
    )
    return output_BHD.unsqueeze(1)


def _lines(states: Tensor) -> Tensor:
    """The cache behind a view (B, K, T, D) as lines (N, K, D); row b begins at line b * stride(0) / stride(2)."""
    rows, heads, columns, width = states.shape
    by_row, by_head, by_column, _ = states.stride()
    count = (rows - 1) * (by_row // by_column) + columns
    return states.as_strided((count, heads, width), (by_column, by_head, 1))


@cache
def kernel() -> Attend:
    """PyTorch's kernel for grouped heads and rows of given lengths; raise `ImportError` where this PyTorch has none."""
    from torch.nn.attention.varlen import varlen_attn

    parameters = inspect.signature(varlen_attn).parameters
    if "seqused_k" not in parameters:
        return _flash_attention
    return partial(varlen_attn, enable_gqa=True) if "enable_gqa" in parameters else varlen_attn


def _flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    first_query_B1: Tensor,
    first_key_B1: Tensor,
    most_queries: int,
    most_keys: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    seqused_k: Tensor,
) -> Tensor:
    """The operator behind `varlen_attn`, for PyTorch 2.11, whose `varlen_attn` does not pass `seqused_k` on to it."""
    return torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        first_query_B1,
        first_key_B1,
        most_queries,
        most_keys,
        0.0,
        False,
        False,
        scale=scale,
        window_size_left=window_size[0],
        window_size_right=window_size[1],
        seqused_k=seqused_k,
    )[0]


@cache
def agrees(model: "Architecture", *, dtype: torch.dtype, device: torch.device) -> bool:
    """Tell whether the kernel runs here and gives what PyTorch's own attention gives; say why where it does not."""
    if device.type != "cuda":
        return False
    try:
        error = largest_error(model, dtype=dtype, device=device, attend=kernel())
    except (ImportError, TypeError, RuntimeError) as reason:
        logging.getLogger(__name__).warning("attention reads unused columns too: %s", str(reason).splitlines()[0])
        return False
    if error > TOLERANCE:
        logging.getLogger(__name__).warning("varlen attention is off by %g here; it is not used", error)
    return error <= TOLERANCE


def largest_error(model: "Architecture", *, dtype: torch.dtype, device: torch.device, attend: Attend) -> float:
    """Return the largest difference to attention in float64 over a few random rows of a model's shape."""
    rows, capacity, used = 4, 96, 64
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device=device, dtype=dtype)

    query = random(rows, model.heads, 1, model.head_width)
    key, value = (random(rows, model.kv_heads, capacity, model.head_width)[:, :, :used] for _ in range(2))
    length_B = torch.tensor([1, 17, 40, used], dtype=torch.int32, device=device)
    seen = torch.arange(used, device=device) < length_B[:, None, None, None]
    exact = [states.double() for states in (query, key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(*exact, attn_mask=seen, enable_gqa=True)
    output = row_attention(query, key, value, length_B=length_B, scaling=None, window=None, attend=attend)
    return (output.transpose(1, 2).double() - expected).abs().max().item()
