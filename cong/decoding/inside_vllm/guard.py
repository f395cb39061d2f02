"""Refuses requests that a contrastive pair cannot answer, when they come in: an HTTP server answers them with 400.

It changes no score; vLLM asks logits processors whether they accept a request, and this is the only place to say no.

    vllm serve POST --logits-processors cong.decoding.inside_vllm.guard:HeadOnly --hf-overrides ...
"""

# pyright: reportMissingImports=false
# vLLM is an extra: not everybody who checks the types has it.

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor

from cong.decoding.inside_vllm.checks import check_request


class HeadOnly(LogitsProcessor):
    """Lets pass only requests that leave all of V_head to choose from."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        check_request(sampling_params)

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        pass

    def apply(self, logits: Tensor) -> Tensor:
        return logits

    def is_argmax_invariant(self) -> bool:
        return True

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        pass
