"""A weak pair whose aligned model is a LoRA adapter on the other: one set of base weights serves both.

The two networks are separate objects, so that neither has to be switched over between passes, but every base weight
exists once in memory:

    post, pre = load_pair(post=adapter_dir, pre=base_dir, dtype="bfloat16", device="cuda")
"""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from cong.decoding.models import load_model

ADAPTER_CONFIG = "adapter_config.json"


def is_adapter(path: str | Path) -> bool:
    """Whether a directory holds a PEFT adapter instead of a whole checkpoint."""
    return (Path(path) / ADAPTER_CONFIG).is_file()


def load_pair(
    *, post: str | Path, pre: str | Path, dtype: str | torch.dtype, device: str | torch.device
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """pi_r and pi_ref; `post` may be the directory of a LoRA adapter that was trained on `pre`."""
    base = load_model(pre, dtype=dtype, device=device)
    if not is_adapter(post):
        return load_model(post, dtype=dtype, device=device), base
    return _with_adapter(base, post), base


def _with_adapter(base: PreTrainedModel, adapter: str | Path) -> PreTrainedModel:
    from peft import PeftModel

    tensors = [*base.parameters(), *base.buffers()]
    # What is in the memo counts as copied already: the twin's modules are new, its weights are those of the base.
    twin = copy.deepcopy(base, {id(tensor): tensor for tensor in tensors})
    wrapped: Any = PeftModel.from_pretrained(twin, str(adapter), is_trainable=False)
    network: Any = wrapped.get_base_model()
    return network.to(base.dtype).eval().requires_grad_(False)
