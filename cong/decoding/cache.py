"""A key-value cache of fixed rows ("slots") for unmodified Hugging Face backbones.

Every slot holds one sequence from position 0 on. A prefill writes whole prompts into given slots; a decoding step
writes one token per row at that row's own position and shows the backbone only the columns in use. Stale columns
behind a row's length are never read: the attention mask ends at the length.

    cache = SlotCache(layers=24, slots=64, capacity=512, limit=4096)
    cache.begin_prefill(slots_P)                              # then a forward pass over P prompts
    cache.begin_step(StepPlace(rows_B=rows, position_B=lengths, bands=[Band(64, 300)], exact=False))   # one per row
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from cong.decoding.bands import Band

GROWTH = 512
"""Most tokens by which a cache outgrows what is asked for."""

STEP = 64
"""A cache holds a multiple of so many tokens per slot, or as many as the model allows."""


class StepPlace:
    """Where a decoding step writes and what it reads, worked out once for all layers of all models.

    It writes the column `position_B` of each row, and reads of the rows of every band as many columns as it says, or
    with `exact` of every row no column behind its own.
    """

    def __init__(self, *, rows_B: Tensor, position_B: Tensor, bands: Sequence[Band], exact: bool) -> None:
        self.rows_B, self.position_B, self.bands = rows_B, position_B, bands
        self.used = max(band.columns for band in bands)
        # A slot that is empty may still have the length of a longer row.
        self.length_B = (position_B + 1).clamp_max(self.used).to(torch.int32) if exact else None
        self._lines: dict[tuple[int, int], Tensor] = {}
        self._masks: dict[Any, Tensor | dict[str, Tensor]] = {}

    def masks(self, config: Any, *, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """What `attention_masks` gives for these rows, once for all models of one kind."""
        kind = (dtype, getattr(config, "sliding_window", None), tuple(getattr(config, "layer_types", None) or ()))
        if kind not in self._masks:
            self._masks[kind] = attention_masks(config, length_B=self.position_B, used=self.used, dtype=dtype)
        return self._masks[kind]

    def lines(self, *, heads: int, capacity: int) -> Tensor:
        """Positions (B * heads) in a cache (slots, heads, capacity, width) seen as one list of lines."""
        if (heads, capacity) not in self._lines:
            head_H = torch.arange(heads, device=self.rows_B.device)
            line_BH = (self.rows_B.unsqueeze(1) * heads + head_H) * capacity + self.position_B.unsqueeze(1)
            self._lines[heads, capacity] = line_BH.flatten()
        return self._lines[heads, capacity]


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, shape (slots, heads, capacity, head_dim), allocated when the first keys arrive."""

    def __init__(self, *, slots: int, capacity: int) -> None:
        super().__init__()
        self.slots, self.capacity = slots, capacity
        self.target_P: Tensor | None = None
        self.start = 0
        self.place: StepPlace | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys = self._allocate(key_states, self.capacity)
        self.values = self._allocate(value_states, self.capacity)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        if self.target_P is not None:
            end = self.start + key_states.shape[2]
            self.keys[:, :, self.start : end].index_copy_(0, self.target_P, key_states)
            self.values[:, :, self.start : end].index_copy_(0, self.target_P, value_states)
            if self.start == 0:
                return key_states, value_states
            prompts = [states[:, :, :end].index_select(0, self.target_P) for states in (self.keys, self.values)]
            return prompts[0], prompts[1]
        assert self.place is not None
        rows, heads, _, _ = key_states.shape
        lines = self.place.lines(heads=heads, capacity=self.keys.shape[2])
        # A copy of whole lines costs a fraction of an assignment through two index tensors.
        for states, new in ((self.keys, key_states), (self.values, value_states)):
            states.view(-1, states.shape[3]).index_copy_(0, lines, new.reshape(rows * heads, -1))
        return self.keys[:rows, :, : self.place.used], self.values[:rows, :, : self.place.used]

    def copy_rows(self, source_P: Tensor, target_P: Tensor, *, length: int) -> None:
        if self.keys is None or self.values is None:
            return
        for states in (self.keys, self.values):
            part = states[:, :, :length]
            part.index_copy_(0, target_P, part.index_select(0, source_P))

    def grow(self, capacity: int) -> None:
        self.capacity = capacity
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self._enlarged(self.keys), self._enlarged(self.values)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.start + query_length, 0

    def get_seq_length(self) -> int:
        """Where a prefill goes on; a decoding step brings positions and masks and does not ask."""
        return self.start

    def get_max_length(self) -> int:
        return self.capacity

    def _allocate(self, like: Tensor, capacity: int) -> Tensor:
        # Zeros, not garbage: 0 times a masked NaN would be NaN.
        return like.new_zeros(self.slots, like.shape[1], capacity, like.shape[3])

    def _enlarged(self, states: Tensor) -> Tensor:
        larger = self._allocate(states, self.capacity)
        larger[:, :, : states.shape[2]] = states
        return larger


class SlotCache(Cache):
    """All layers of one model; see the module's docstring."""

    def __init__(self, *, layers: int, slots: int, capacity: int, limit: int) -> None:
        self.slot_layers = [SlotLayer(slots=slots, capacity=capacity) for _ in range(layers)]
        self.capacity, self.limit = capacity, limit
        super().__init__(layers=list(self.slot_layers))

    def begin_prefill(self, target_P: Tensor, *, start: int = 0) -> None:
        """The next forward pass writes P prompts into the slots `target_P`, from column `start` on."""
        for layer in self.slot_layers:
            layer.target_P, layer.start = target_P, start

    def begin_step(self, place: StepPlace) -> None:
        """The next forward pass writes one token into each of the first rows, and reads what `place` says."""
        for layer in self.slot_layers:
            layer.target_P, layer.start, layer.place = None, 0, place

    def copy_rows(self, source_P: Tensor, target_P: Tensor, *, length: int) -> None:
        """Copy the first `length` columns of slots to other slots."""
        for layer in self.slot_layers:
            layer.copy_rows(source_P, target_P, length=length)

    def reserve(self, capacity: int) -> None:
        """Make room for sequences of `capacity` tokens.

        Doubling keeps growing rare; from `GROWTH` tokens on it goes by as many, for twice a long cache fits no device.
        Whole multiples of `STEP` keep it from growing for the few tokens that a next prompt is longer.
        """
        assert capacity <= self.limit
        if capacity > self.capacity:
            asked = -(-capacity // STEP) * STEP
            self.capacity = min(max(asked, min(2 * self.capacity, self.capacity + GROWTH)), self.limit)
            for layer in self.slot_layers:
                layer.grow(self.capacity)


def attention_masks(config, *, length_B: Tensor, used: int, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """Additive masks, shape (B, 1, 1, used), for one query per row that sits at position `length_B` of its row.

    Returned in the form the backbone takes ready-made masks in: a dictionary by layer type when it mixes them.
    """
    column_1T = torch.arange(used, device=length_B.device).unsqueeze(0)
    distance_BT = length_B.unsqueeze(1) - column_1T
    full_BT = distance_BT < 0
    window = getattr(config, "sliding_window", None)
    types = set(getattr(config, "layer_types", None) or ())
    if window is None or types == {"full_attention"}:
        return _additive(full_BT, dtype)
    sliding_BT = full_BT | (distance_BT >= window)
    if types:
        return {"full_attention": _additive(full_BT, dtype), "sliding_attention": _additive(sliding_BT, dtype)}
    return _additive(sliding_BT, dtype)


def _additive(hidden_BT: Tensor, dtype: torch.dtype) -> Tensor:
    zeros_BT = torch.zeros(hidden_BT.shape, dtype=dtype, device=hidden_BT.device)
    return zeros_BT.masked_fill_(hidden_BT, torch.finfo(dtype).min)[:, None, None, :]
