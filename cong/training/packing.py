"""A padded batch as one line of tokens: no layer computes padding, and a token attends to its own row alone.

    add_fused_lm_head(model)     # TRL's
    pack_rows(model)
    model(input_ids=ids_BT, attention_mask=mask_BT, labels=labels_BT, fused_lm_head=True).log_probs   # (B, T - 1)

B rows of at most T tokens hold N tokens. The losses go on seeing padded tensors of one number per token; what is large,
hidden states and logits, has N lines. Architectures that are not listed run on the padded batch: one whose layers mix
neighbouring tokens otherwise than by attention would mix rows.
"""

import dataclasses
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any

import torch
from torch import Tensor

from cong.decoding.sizing import architecture
from cong.training.packed_attention import NAME, Rows, agrees

FAMILIES = ("gemma", "gemma3_text", "gpt2", "llama", "mistral", "opt", "phi", "phi3", "qwen2", "qwen3")
"""Architectures (`model_type`) whose packed batches were compared with padded ones."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Packing:
    """Where the tokens of a padded batch lie in the line."""

    token_BT: Tensor
    """Whether a place of the batch holds a token."""
    rows: Rows

    @classmethod
    def of(cls, attention_mask: Tensor, *, model: Any) -> "Packing":
        """Return the packing of the batch (B, T) whose tokens are marked; those of a row stand side by side."""
        lengths, device = tuple(attention_mask.sum(dim=1).tolist()), attention_mask.device
        half = _half(model) if device.type == "cuda" else None
        return cls(token_BT=attention_mask.bool(), rows=Rows(lengths=lengths, device=device, half=half))

    def pack(self, values_BT: Tensor) -> Tensor:
        """Return the values of the tokens (1, N)."""
        return values_BT[self.token_BT].unsqueeze(0)

    @cached_property
    def first_N(self) -> Tensor:
        """Whether a token is the first of its row: it has nothing before it that could predict it."""
        return self.position_1N[0] == 0

    @cached_property
    def position_1N(self) -> Tensor:
        """Position of every token in its row."""
        return (self.token_BT.cumsum(dim=1) - 1)[self.token_BT].unsqueeze(0)

    def pack_labels(self, labels_BT: Tensor) -> Tensor:
        """Return the labels (1, N), without those of first tokens."""
        return self.pack(labels_BT).masked_fill(self.first_N, -100)

    def unpack_predictions(self, values: Tensor) -> Tensor:
        """Return values (1, N - 1) of all tokens but the line's first as (B, T - 1), 0 where there is none."""
        follows_BT = self.token_BT[:, 1:] & self.token_BT[:, :-1]
        return values.new_zeros(follows_BT.shape).masked_scatter(follows_BT, values[0, ~self.first_N[1:]])

    def inputs(self, input_ids: Tensor) -> dict[str, Any]:
        """Return what a model is called with."""
        # A mask of four dimensions is taken as it is: the library would make one of N x N.
        nothing = torch.zeros(1, 1, 1, 1, device=input_ids.device)
        ids, places = self.pack(input_ids), self.position_1N
        return {"input_ids": ids, "position_ids": places, "attention_mask": nothing, "rows": self.rows}


def packs(model: Any) -> bool:
    """Tell whether a model runs on packed rows: `pack_rows` was called, and could replace its attention."""
    return model.config._attn_implementation == NAME


def pack_rows(model: Any) -> None:
    """Let passes with `fused_lm_head=True` compute a batch without its padding, where the model can."""
    if model.config.model_type not in FAMILIES or model.config._attn_implementation != "sdpa":
        return
    model.config._attn_implementation = NAME
    padded: Callable[..., Any] = model.forward

    # The signature stays: `generate` and the trainer look at it.
    @wraps(padded)
    def forward(
        self: Any,
        input_ids: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        fused_lm_head: bool = False,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head or attention_mask is None or input_ids is None or labels is None:
            given = {"attention_mask": attention_mask, "labels": labels, **kwargs}
            return padded(input_ids, **given, fused_lm_head=fused_lm_head)
        packing = Packing.of(attention_mask, model=self)
        output = padded(**packing.inputs(input_ids), labels=packing.pack_labels(labels), fused_lm_head=True, **kwargs)
        return _unpacked(output, packing)

    model.forward = types.MethodType(forward, model)


def _half(model: Any) -> torch.dtype | None:
    """Return the half precision in which a model on CUDA runs, if PyTorch's kernel for it can be used."""
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else model.dtype
    if dtype not in (torch.bfloat16, torch.float16):
        return None
    return dtype if agrees(architecture(model.config), dtype=dtype, device=model.device) else None


def _unpacked(output: Any, packing: Packing) -> Any:
    """Return TRL's output of a fused head in the layout of the padded batch."""
    fields = ((item.name, getattr(output, item.name)) for item in dataclasses.fields(output))
    tensors = {name: value for name, value in fields if isinstance(value, Tensor) and value.dim() == 2}
    return dataclasses.replace(output, **{name: packing.unpack_predictions(value) for name, value in tensors.items()})
