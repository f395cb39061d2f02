"""Attention of one query token per row that reads a row's own columns of the cache and no others, on CUDA.

`torch.nn.attention.varlen` takes the keys of all rows as one list of lines, with every row's first line and number of
lines. A slot cache, shape (slots, heads, capacity, width), is such a list as it lies in memory: from one line to the
next it goes on by `width`, from head to head by `capacity * width`, from row to row by `heads * capacity` lines. So
nothing is copied, and the columns behind a row's length are not read.

The kernel exists for float16 and bfloat16 on CUDA only. Before an engine uses it, `agrees` tries it on a few rows of
that engine's shape against PyTorch's own attention.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cong.architecture import Architecture

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
        enable_gqa=True,
        seqused_k=length_B,
    )
    return output_BHD.unsqueeze(1)


def _lines(states: Tensor) -> Tensor:
    """The cache behind a view (B, K, T, D) as lines (N, K, D); row b begins at line b * stride(0) / stride(2)."""
    rows, heads, columns, width = states.shape
    by_row, by_head, by_column, _ = states.stride()
    count = (rows - 1) * (by_row // by_column) + columns
    return states.as_strided((count, heads, width), (by_column, by_head, 1))


def kernel() -> Attend:
    """PyTorch's kernel; raise `ImportError` where this PyTorch has none."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


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
    """Return the largest difference to PyTorch's own attention over a few random rows of a model's shape."""
    rows, capacity, used = 4, 96, 64
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device=device, dtype=dtype)

    query = random(rows, model.heads, 1, model.head_width)
    key, value = (random(rows, model.kv_heads, capacity, model.head_width)[:, :, :used] for _ in range(2))
    length_B = torch.tensor([1, 17, 40, used], dtype=torch.int32, device=device)
    seen = torch.arange(used, device=device) < length_B[:, None, None, None]
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, enable_gqa=True)
    found = row_attention(query, key, value, length_B=length_B, scaling=None, window=None, attend=attend)
    return (found.transpose(1, 2) - expected).abs().max().item()
