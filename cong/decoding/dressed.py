"""Several models dressed up as one, so that Hugging Face `generate` decodes with them as it decodes with any model.

pair = ContrastivePair(post=post, pre=pre, alpha=0.5, pruning_threshold=0.1)
pair.generate(input_ids, attention_mask=mask, max_new_tokens=64)
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from cong.decoding.combine import Combination, Contrast
from cong.decoding.models import common_vocab_size
from cong.decoding.score import log_probs


class DressedModels(PreTrainedModel, GenerationMixin):
    """A forward pass runs all models on the same input; its logits are what their combination makes of theirs.

    Its cache holds the layers of the first model first and those of the others behind them. `coefficient` is a number,
    or a tensor of one per row of the batch.
    """

    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(
        self,
        models: Sequence[PreTrainedModel],
        *,
        combination: Combination,
        coefficient: float | Tensor = 1.0,
    ) -> None:
        super().__init__(_common_config([model.config for model in models]))
        self.models = nn.ModuleList(models)
        self.combination, self.coefficient = combination, coefficient
        self.generation_config = GenerationConfig()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        caches = [None] * len(self.models) if past_key_values is None else self._views(past_key_values)
        outputs = [
            model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=past_key_values is not None,
                logits_to_keep=logits_to_keep,
            ).logits
            for model, cache in zip(self.models, caches, strict=True)
        ]
        logits = [output[..., : self.config.vocab_size] for output in outputs]
        # Normalised over each model's own vocabulary, then cut to the ids that all have.
        logprobs = [log_probs(output)[..., : self.config.vocab_size] for output in outputs]
        given = self.coefficient
        scores: Any = self.combination.scores(
            logits, logprobs, coefficient=given.unsqueeze(-1) if isinstance(given, Tensor) else given
        )
        return CausalLMOutputWithPast(logits=scores, past_key_values=past_key_values)

    def _views(self, cache: Cache) -> list[Cache]:
        configs: list[Any] = [model.config for model in self.models]
        if isinstance(cache, DynamicCache) and cache.get_seq_length() == 0:
            # `generate` builds one kind of layer for all; each model has windows of its own, or none.
            cache.layers[:] = [layer for config in configs for layer in DynamicCache(config=config).layers]
        views, start = [], 0
        for config in configs:
            end = start + config.get_text_config().num_hidden_layers
            views.append(Cache(layers=cache.layers[start:end]))
            start = end
        return views


class ContrastivePair(DressedModels):
    """Two models as one, whose logits are F (Eq. 7, 8 and 10); `alpha` is a number, or a tensor of one per row."""

    def __init__(
        self,
        *,
        post: PreTrainedModel,
        pre: PreTrainedModel,
        alpha: float | Tensor,
        pruning_threshold: float,
        scores: Literal["formula", "official"] = "formula",
    ) -> None:
        contrast = Contrast(pruning_threshold=pruning_threshold, kind=scores)
        super().__init__((post, pre), combination=contrast, coefficient=alpha)


def _common_config(configs: Sequence[Any]) -> PreTrainedConfig:
    """What `generate` must know of the models: it is no family's own, for that of one would not hold for the others."""
    first = configs[0].get_text_config()
    numbers: dict[str, Any] = {
        "num_hidden_layers": sum(config.get_text_config().num_hidden_layers for config in configs),
        "num_attention_heads": first.num_attention_heads,
        "hidden_size": first.hidden_size,
        "vocab_size": common_vocab_size(*configs),
    }
    return PreTrainedConfig(**numbers)
