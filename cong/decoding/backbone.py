"""One model of the slot engine with its cache: prefill of whole prompts, and decoding steps of one token per row."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor
from transformers import PreTrainedModel

from cong.decoding.attention import grouped_attention
from cong.decoding.cache import SlotCache, attention_masks

# Padded tokens of one prefill pass: bounds its memory, and is enough to keep a device busy.
PREFILL_TOKENS = 16384


@dataclass
class Backbone:
    """One model with its cache."""

    model: PreTrainedModel
    cache: SlotCache = field(repr=False)

    def prefill(self, tokens_PL: Tensor, slots_P: Tensor) -> None:
        self.cache.begin_prefill(slots_P)
        self.model.base_model(input_ids=tokens_PL, past_key_values=self.cache, use_cache=True)

    def step(self, token_B: Tensor, *, rows_B: Tensor, position_B: Tensor, used: int) -> Tensor:
        """Logits (B, V) after one more token per row."""
        self.cache.begin_step(rows_B=rows_B, position_B=position_B, used=used)
        config = self.model.config.get_text_config()
        with grouped_attention(self.model):
            output = self.model(
                input_ids=token_B.unsqueeze(1),
                position_ids=position_B.unsqueeze(1),
                attention_mask=attention_masks(config, length_B=position_B, used=used, dtype=self.model.dtype),
                past_key_values=self.cache,
                use_cache=True,
            )
        return output.logits[:, -1]


def prefill_groups(fresh: list[tuple[int, tuple[int, ...]]]) -> Iterator[list[tuple[int, tuple[int, ...]]]]:
    """Groups of (slot, prompt), shortest first, that waste little on padding and stay below PREFILL_TOKENS."""
    group: list[tuple[int, tuple[int, ...]]] = []
    for slot, prefix in sorted(fresh, key=lambda item: len(item[1])):
        too_long = group and len(prefix) > 16 + 1.5 * len(group[0][1])
        if group and (too_long or (len(group) + 1) * len(prefix) > PREFILL_TOKENS):
            yield group
            group = []
        group.append((slot, prefix))
    if group:
        yield group
