"""A weak pair whose aligned model is a LoRA adapter on the other: one set of base weights serves both where it can.

The two networks are separate objects, so that neither has to be switched over between passes, but every base weight
exists once in memory. Some adapters replace weights of their base when they are loaded: trained biases, whole modules,
grown embeddings, initialisations that subtract from the base (PiSSA, OLoRA, ...). The base is then loaded once more, so
that pi_ref is the checkpoint, bit for bit, with every adapter:

    post, pre = load_pair(post=adapter_dir, pre=base_dir, dtype="bfloat16", device="cuda")
"""

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cong.decoding.models import load_model
from cong.errors import UserError
from cong.models import LocalModel
from cong.models.weightfiles import tensor_names
from cong.models.weights import first_line, some_of

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PIECE = 1 << 24
"""Elements of a weight that are summed at once: as 64-bit integers they take several times their memory."""


def load_pair(
    *, post: str | Path, pre: str | Path, dtype: str | torch.dtype, device: str | torch.device
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """pi_r and pi_ref; `post` may be the directory of a LoRA adapter that was trained on `pre`.

    Raises `UserError` when a checkpoint or an adapter does not hold every weight of its model and no others.
    """
    base = load_model(pre, dtype=dtype, device=device)
    if not LocalModel(path=str(post)).is_adapter:
        return load_model(post, dtype=dtype, device=device), base
    before = checksum(base)
    twin = _adapted(_sharing(base), post)
    return twin, base if checksum(base) == before else load_model(pre, dtype=dtype, device=device)


def checksum(model: PreTrainedModel) -> list[tuple[str, int, int]]:
    """Two sums over the bits of every weight and buffer, one of them weighted by position."""
    return [(name, *_bit_sums(tensor)) for name, tensor in [*model.named_parameters(), *model.named_buffers()]]


def _bit_sums(tensor: Tensor) -> tuple[int, int]:
    flat = tensor.detach().contiguous().flatten()
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = flat.view(integers[flat.element_size()]) if flat.element_size() in integers else flat
    total = weighted = 0
    for number, part in enumerate(bits.split(_PIECE)):
        wide = part.long()
        total += int(wide.sum())
        weighted += (number + 1) * int((wide * torch.arange(1, len(wide) + 1, device=wide.device)).sum())
    return total, weighted


def _sharing(base: PreTrainedModel) -> PreTrainedModel:
    """A copy of the network whose weights are those of the base."""
    tensors = [*base.parameters(), *base.buffers()]
    # What is in the memo counts as copied already: the twin's modules are new, its weights are those of the base.
    return copy.deepcopy(base, {id(tensor): tensor for tensor in tensors})


def _adapted(network: PreTrainedModel, adapter: str | Path) -> PreTrainedModel:
    """The network with an adapter in it, each of whose tensors has its place there."""
    from peft import PeftModel, get_peft_model_state_dict

    _check_kind(Path(adapter))
    own = {id(weight) for weight in network.parameters()}
    known = {f"base_model.model.{name}" for name in network.state_dict()}
    try:
        wrapped: Any = PeftModel.from_pretrained(network, str(adapter), is_trainable=False)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the adapter {adapter} does not fit its base: {first_line(error)}") from error
    _check_names(adapter, wanted=get_peft_model_state_dict(wrapped, save_embedding_layers=False), beside=known)
    adapted: Any = wrapped.get_base_model()
    for weight in adapted.parameters():
        # PEFT keeps its own tensors in float32. A cast of the whole network would round the frequencies of positions.
        if id(weight) not in own and weight.is_floating_point():
            weight.data = weight.data.to(network.dtype)
    return adapted.eval().requires_grad_(False)


def _check_kind(adapter: Path) -> None:
    settings = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    start = settings.get("init_lora_weights")
    if settings.get("layer_replication"):
        raise UserError(f"the adapter {adapter} repeats layers of its base: merge it into a checkpoint")
    if isinstance(start, str) and start.startswith("pissa_niter"):
        raise UserError(
            f"the adapter {adapter} started from a randomized decomposition of its base ({start}), which every loading "
            "draws again: merge it into a checkpoint"
        )


def _check_names(adapter: str | Path, *, wanted: Iterable[str], beside: set[str]) -> None:
    """Compare the stored tensors with those of the adapter; grown embeddings lie `beside` it under the base's names."""
    stored = _plain_names(tensor_names(Path(adapter) / ADAPTER_WEIGHTS))
    needed = _plain_names(wanted)
    faults = {"misses": needed - stored, "holds what has no place there:": stored - needed - beside}
    described = [f"{what} {some_of(names)}" for what, names in faults.items() if names]
    if described:
        raise UserError(f"the adapter {adapter} does not fit its base: it {', and '.join(described)}")


def _plain_names(names: Iterable[str]) -> set[str]:
    # A layer that is adapted keeps its own weights one level further down.
    return {name.replace(".base_layer.", ".") for name in names}
