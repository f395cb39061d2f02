"""One model of the slot engine with its cache: prefill of whole prompts, and decoding steps of one token per row."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor
from transformers import PreTrainedModel

from cong.decoding.attention import grouped_attention
from cong.decoding.cache import SlotCache, StepPlace
from cong.decoding.sizing import architecture
from cong.decoding.varlen import agrees


@dataclass
class Backbone:
    """One model with its cache."""

    model: PreTrainedModel
    cache: SlotCache = field(repr=False)

    def prefill(self, tokens_PL: Tensor, slots_P: Tensor, *, chunk: int) -> None:
        """Write prompts into slots, at most `chunk` columns per pass."""
        for start in range(0, tokens_PL.shape[1], chunk):
            tokens_PC = tokens_PL[:, start : start + chunk]
            self.cache.begin_prefill(slots_P, start=start)
            self.model.base_model(input_ids=tokens_PC, past_key_values=self.cache, use_cache=True)

    def step(self, token_B: Tensor, place: StepPlace) -> Tensor:
        """Logits (B, V) after one more token per row."""
        self.cache.begin_step(place)
        config = self.model.config.get_text_config()
        with grouped_attention(self.model):
            output = self.model(
                input_ids=token_B.unsqueeze(1),
                position_ids=place.position_B.unsqueeze(1),
                attention_mask=place.masks(config, dtype=self.model.dtype),
                past_key_values=self.cache,
                use_cache=True,
                place=place,
            )
        return output.logits[:, -1]


def reads_own_columns(model: PreTrainedModel) -> bool:
    """Tell whether attention can leave out the columns behind a row's own, on the device of this model."""
    return agrees(architecture(model.config), dtype=model.dtype, device=model.device)


Prompt = tuple[int, tuple[int, ...]]
"""A slot and the tokens that its cache is to start with."""


def prefill_groups(fresh: list[Prompt], *, most_tokens: int) -> Iterator[list[Prompt]]:
    """Groups of prompts, shortest first, that waste little on padding; a pass has `most_tokens` or one prompt."""
    group: list[Prompt] = []
    for slot, prefix in sorted(fresh, key=lambda item: len(item[1])):
        too_long = group and len(prefix) > 16 + 1.5 * len(group[0][1])
        if group and (too_long or (len(group) + 1) * len(prefix) > most_tokens):
            yield group
            group = []
        group.append((slot, prefix))
    if group:
        yield group
