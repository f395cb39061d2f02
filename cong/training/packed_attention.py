"""Causal attention of rows that lie one behind the other in a line of tokens, registered with transformers.

On CUDA in half precision PyTorch's `varlen_attn` computes all rows in one kernel. Elsewhere rows of like length are
padded to the longest of them for the attention alone: in a causal attention no token sees what comes behind it, so
padding at the end needs no mask.
"""

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from cong.models.architecture import Architecture

NAME = "cong_packed"

ALIKE = 0.8
"""Rows are padded to one length if the shortest has this share of the longest: attention of it costs 0.64 as much."""

Attend = Callable[..., Tensor]
"""`by_groups` or `by_kernel`."""

TOLERANCE = 0.05
"""Of outputs and gradients near 1 in bfloat16, relative to the largest; a token of another row is off by far more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Lengths of the rows of a line, and how their attention is computed."""

    lengths: tuple[int, ...]
    device: torch.device
    half: torch.dtype | None = None
    """Precision in which PyTorch's kernel computes it; None without the kernel."""

    @cached_property
    def first_B1(self) -> Tensor:
        """Where each row begins, and where the line ends."""
        return torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32, device=self.device)

    @cached_property
    def longest(self) -> int:
        """Length of the longest row."""
        return max(self.lengths)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Rows of like length, which are computed together, the longest first."""
        groups: list[list[int]] = []
        for row in sorted(range(len(self.lengths)), key=lambda row: -self.lengths[row]):
            if not groups or self.lengths[row] < ALIKE * self.lengths[groups[-1][0]]:
                groups.append([])
            groups[-1].append(row)
        return tuple(tuple(group) for group in groups)


@torch.compiler.disable  # the lengths of rows are other ones in every batch
def packed_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    rows: Rows | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention (1, N, H, D) of queries (1, H, N, D) over keys and values (1, K, N, D) of the same row."""
    if rows is None:
        given = {"dropout": dropout, "scaling": scaling, "sliding_window": sliding_window, **kwargs}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **given)
    lines = [states.squeeze(0).transpose(0, 1) for states in (query, key, value)]
    settings: dict[str, Any] = {"rows": rows, "scaling": scaling, "window": sliding_window}
    if rows.half is None or dropout:
        return by_groups(*lines, **settings, dropout=dropout).unsqueeze(0), None
    return by_kernel(*(states.to(rows.half) for states in lines), **settings).unsqueeze(0), None


def by_groups(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    rows: Rows,
    scaling: float | None,
    window: int | None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention (N, H, D) of lines (N, H, D) and (N, K, D), a group of rows of like length at a time."""
    by_row = [states.split(list(rows.lengths)) for states in (query, key, value)]
    outputs: dict[int, Tensor] = {}
    for group in rows.groups:
        padded = [pad_sequence([parts[row] for row in group], batch_first=True).transpose(1, 2) for parts in by_row]
        output = nn.functional.scaled_dot_product_attention(
            *padded, **_causal(padded[0].shape[2], window, query.device), scale=scaling, dropout_p=dropout,
            enable_gqa=True,
        )  # fmt: skip
        own = zip(group, output.transpose(1, 2), strict=True)
        outputs |= {row: states[: rows.lengths[row]] for row, states in own}
    return torch.cat([outputs[row] for row in range(len(rows.lengths))])


def _causal(length: int, window: int | None, device: torch.device) -> dict[str, Any]:
    """Return which tokens see which: all before them, or the last `window` with themselves."""
    if window is None or window >= length:
        return {"is_causal": True}
    place = torch.arange(length, device=device)
    distance = place[:, None] - place[None, :]
    return {"attn_mask": (distance >= 0) & (distance < window)}


@cache
def agrees(model: Architecture, *, dtype: torch.dtype, device: torch.device) -> bool:
    """Tell whether PyTorch's kernel runs here and gives what `by_groups` gives; say why where it does not.

    Not to be called in a checkpointed layer: what is saved here would be missed when the layer is computed again.
    """
    try:
        error = largest_error(by_kernel, model, dtype=dtype, device=device)
    except (ImportError, TypeError, RuntimeError, ValueError) as reason:
        logging.getLogger(__name__).warning("no kernel for packed rows here: %s", str(reason).splitlines()[0])
        return False
    if error > TOLERANCE:
        logging.getLogger(__name__).warning("the kernel for packed rows is off by %g here; it is not used", error)
    return error <= TOLERANCE


def by_kernel(
    query: Tensor, key: Tensor, value: Tensor, *, rows: Rows, scaling: float | None, window: int | None
) -> Tensor:
    """Attention (N, H, D) of lines in half precision by PyTorch's kernel, which reads no other row."""
    longest, first_B1 = rows.longest, rows.first_B1
    left = -1 if window is None else window - 1
    return _kernel()(query, key, value, first_B1, first_B1, longest, longest, scale=scaling, window_size=(left, 0))


@cache
def _kernel() -> Callable[..., Any]:
    from torch.nn.attention.varlen import varlen_attn

    grouped = "enable_gqa" in inspect.signature(varlen_attn).parameters
    # PyTorch 2.11 has no such switch, and its kernel takes fewer heads of keys as they are.
    return partial(varlen_attn, enable_gqa=True) if grouped else varlen_attn


def largest_error(attend: Attend, model: Architecture, *, dtype: torch.dtype, device: torch.device) -> float:
    """Return the largest difference, outputs and gradients, to `by_groups` in float32, over the largest value."""
    rows = Rows(lengths=(150, 64, 17, 1), device=device)
    generator = torch.Generator().manual_seed(0)
    heads = (model.heads, model.kv_heads, model.kv_heads, model.heads)
    shapes = [(sum(rows.lengths), count, model.head_width) for count in heads]
    lines = [torch.randn(shape, generator=generator).to(device=device, dtype=dtype) for shape in shapes]
    settings = {"rows": rows, "scaling": None, "window": None}
    with torch.autocast(device.type, enabled=False):
        exact = _with_gradients(by_groups, [states.float() for states in lines], settings)
        own = _with_gradients(attend, lines, settings)
    errors = [(one.float() - other).abs().max() / other.abs().max() for one, other in zip(own, exact, strict=True)]
    return torch.stack(errors).max().item()


@torch.enable_grad()
def _with_gradients(attend: Attend, lines: list[Tensor], settings: dict[str, Any]) -> list[Tensor]:
    """Return the output for the first three lines, and its gradients where the fourth is that of the output."""
    inputs = [states.detach().requires_grad_() for states in lines[:3]]
    output = attend(*inputs, **settings)
    return [output, *torch.autograd.grad(output, inputs, lines[3])]


AttentionInterface.register(NAME, packed_attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
