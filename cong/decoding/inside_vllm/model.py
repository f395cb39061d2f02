"""The weak pair as one vLLM model: both backbones in one forward pass, F (Eq. 7, 8 and 10) as its logits.

vLLM's scheduler, paged cache, prefix caching, chunked prefill, preemption and tensor parallelism then work as they are:
the layers of the two models have names, and so caches, of their own. No directory is made for the pair:

    vllm serve POST --logits-processors cong.decoding.inside_vllm.guard:HeadOnly --hf-overrides \
        '{"architectures": ["ContrastivePairForCausalLM"], "cd_ref": "PRE", "cd_alpha": 0.5, "cd_threshold": 0.1}'

Without `cd_ref` the same wrapper holds one model. Imported by vLLM only; `vllm_engine.VllmEngine` is the way to use it.
"""

# pyright: reportMissingImports=false
# vLLM is an extra: not everybody who checks the types has it.

from collections.abc import Iterable
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.models.utils import init_vllm_registered_model, maybe_prefix
from vllm.sequence import IntermediateTensors
from vllm.transformers_utils.config import get_config

from cong.decoding.inside_vllm.checks import SETTINGS, check_alike, check_engine
from cong.decoding.inside_vllm.weights import check_weights
from cong.decoding.score import contrastive_scores, log_probs

REF = "pi_ref."


@support_torch_compile
class Backbones(nn.Module):
    """pi_r and, for a pair, pi_ref: their hidden states side by side.

    Compiled as one graph: two graphs compiled apart would share one path in vLLM's compilation cache.
    """

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        # A name of its own for each: caches are found by the names of the attention layers.
        self.pi_r = self._backbone(vllm_config, config, config.cd_architecture, maybe_prefix(prefix, "pi_r"))
        self.pi_ref = None
        if config.cd_ref is not None:
            pre = _pre_config(config)
            self.pi_ref = self._backbone(vllm_config, pre, pre.architectures[0], maybe_prefix(prefix, "pi_ref"))

    @staticmethod
    def _backbone(vllm_config: VllmConfig, config: Any, architecture: str, prefix: str) -> nn.Module:
        return init_vllm_registered_model(vllm_config, hf_config=config, architectures=[architecture], prefix=prefix)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        hidden = self.pi_r(input_ids, positions, intermediate_tensors, inputs_embeds)
        if self.pi_ref is None:
            return hidden
        return torch.cat([hidden, self.pi_ref(input_ids, positions, intermediate_tensors, inputs_embeds)], dim=-1)


class ContrastivePairForCausalLM(nn.Module):
    """What vLLM holds. Its logits are F; the library's sampler sets `deferred` and takes the logits of the models."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        check_engine(vllm_config)
        self.config = config = vllm_config.model_config.hf_config
        _fill_in(config, vllm_config)
        self.alpha, self.pruning_threshold, self.scores = config.cd_alpha, config.cd_threshold, config.cd_scores
        paths = [vllm_config.model_config.model, *([config.cd_ref] if config.cd_ref is not None else [])]
        for path in paths:
            check_weights(path)
        # vLLM's loader reads these after the model's own, with the prefix before every name.
        self.secondary_weights = [DefaultModelLoader.Source(path, None, prefix=REF) for path in paths[1:]]
        self.backbones = Backbones(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "backbones"))
        self.deferred, self.latest = False, list[Tensor]()

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """Refuse: an embedding made outside would be that of one model."""
        raise NotImplementedError("a pair has two embeddings of every token; pass token ids, not embeddings")

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        return self.backbones(input_ids, positions, intermediate_tensors, inputs_embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """F (B, V) in float32, where V is that of pi_r, for which vLLM has laid out its own tensors."""
        logits = self._logits(hidden_states)
        if logits is None:
            return None
        if self.deferred:
            self.latest = logits
            return logits[0]
        logprobs = [log_probs(logits_BV) for logits_BV in logits]
        return scores_of(
            logits, logprobs, alpha=self.alpha, pruning_threshold=self.pruning_threshold, scores=self.scores
        )

    def _logits(self, hidden_states: Tensor) -> list[Tensor] | None:
        """Logits of each model; None where tensor parallelism gathers them on another rank."""
        models: list[Any] = [model for model in (self.backbones.pi_r, self.backbones.pi_ref) if model is not None]
        parts = hidden_states.split([model.config.hidden_size for model in models], dim=-1)
        logits = [model.compute_logits(part) for model, part in zip(models, parts, strict=True)]
        return None if logits[0] is None else logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Hand each model its tensors; the prefix says whose they are."""
        loaded: set[str] = set()
        for is_ref, part in groupby(weights, key=lambda item: item[0].startswith(REF)):
            name = "pi_ref" if is_ref else "pi_r"
            own = ((key.removeprefix(REF), tensor) for key, tensor in part)
            loaded |= {f"backbones.{name}.{key}" for key in getattr(self.backbones, name).load_weights(own)}
        return loaded


def scores_of(
    logits: list[Tensor],
    logprobs: list[Tensor],
    *,
    alpha: float | Tensor,
    pruning_threshold: float,
    scores: Literal["formula", "official"],
) -> Tensor:
    """F (B, V) of a pair, where V is that of pi_r; the logits of a single model."""
    if len(logits) == 1:
        return logits[0].float()
    size = logits[0].shape[-1]
    shared = min(size, logits[1].shape[-1])
    scores_BV = contrastive_scores(
        logprobs[0][:, :shared],
        logprobs[1][:, :shared],
        alpha=alpha,
        pruning_threshold=pruning_threshold,
        scores=scores,
    )
    return scores_BV if shared == size else nn.functional.pad(scores_BV, (0, size - shared), value=-torch.inf)


def _fill_in(config: Any, vllm_config: VllmConfig) -> None:
    """Give the settings that were not named their defaults."""
    for name, value in SETTINGS.items():
        if not hasattr(config, name):
            setattr(config, name, value)
    # The override of `architectures` has replaced what the checkpoint says of itself.
    stored: Any = AutoConfig.from_pretrained(vllm_config.model_config.model)
    config.cd_architecture = stored.architectures[0]
    if config.cd_ref is not None:
        check_alike(config, _pre_config(config), max_context=vllm_config.model_config.max_model_len)


def _pre_config(config: Any) -> Any:
    pre = get_config(config.cd_ref, trust_remote_code=False)
    # Overrides reach the outer configuration alone.
    if getattr(config, "head_dtype", None) is not None:
        pre.head_dtype = config.head_dtype
    return pre
