"""What a slot's cache starts with: the tokens of a prompt but its last, prefilled once and copied where needed.

prefixes = Prefixes(backbones, stats=stats)
prefixes.fill({0: (5, 9, 2), 7: (5, 9, 2)}, most_tokens=16384)   # one prefill, one copy
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cong.decoding.backbone import Backbone, Prompt, prefill_groups
from cong.decoding.rows import SlotStats


class Prefixes:
    """Prefills slots, and knows what they hold, also those whose rows have ended."""

    def __init__(self, backbones: Sequence[Backbone], *, stats: SlotStats, device: torch.device) -> None:
        self._backbones, self._stats, self._device = backbones, stats, device
        self._held: dict[int, tuple[int, ...]] = {}

    def clear(self) -> None:
        """Forget what the slots hold."""
        self._held.clear()

    def fill(self, wanted: Mapping[int, tuple[int, ...]], *, most_tokens: int) -> None:
        """Give slots their prefixes: those that no slot holds yet are prefilled, the others copied."""
        for slot in wanted:
            self._held.pop(slot, None)
        holders = {prefix: slot for slot, prefix in self._held.items()}
        fresh: list[Prompt] = []
        copies: list[tuple[int, int]] = []
        for slot, prefix in wanted.items():
            if prefix in holders:
                copies.append((holders[prefix], slot))
            elif prefix:
                fresh.append((slot, prefix))
                holders[prefix] = slot
            self._held[slot] = prefix
        self._prefill(fresh, most_tokens=most_tokens)
        if copies:
            self._copy(copies, length=max(len(self._held[source]) for source, _ in copies))
            self._stats.shared_prefills += len(copies)

    def move(self, pairs: Sequence[tuple[int, int]], *, length: int) -> tuple[Tensor, Tensor]:
        """Move the first `length` cached tokens from slots to slots, all at once; return both as indices."""
        indices = self._copy(pairs, length=length)
        for source, target in pairs:
            self._held[target] = self._held.pop(source)
        return indices

    def _prefill(self, fresh: list[Prompt], *, most_tokens: int) -> None:
        for group in prefill_groups(fresh, most_tokens=most_tokens):
            longest = len(group[-1][1])
            # Padding on the right: causal attention hides it, and the row's own tokens overwrite it later.
            padded = [prefix + (0,) * (longest - len(prefix)) for _, prefix in group]
            tokens_PL = torch.tensor(padded, device=self._device)
            slots_P = torch.tensor([slot for slot, _ in group], device=self._device)
            for backbone in self._backbones:
                backbone.prefill(tokens_PL, slots_P, chunk=most_tokens)
            self._stats.prefilled_tokens += sum(len(prefix) for _, prefix in group)

    def _copy(self, pairs: Sequence[tuple[int, int]], *, length: int) -> tuple[Tensor, Tensor]:
        source_P, target_P = torch.tensor(pairs, device=self._device).unbind(dim=1)
        for backbone in self._backbones:
            backbone.cache.copy_rows(source_P, target_P, length=length)
        return source_P, target_P
