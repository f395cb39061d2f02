"""Whether a checkpoint holds the weights that its architecture has, no fewer and no more.

vLLM counts the weights of linear layers as loaded whatever it has read: a missing one would be decoded with whatever
memory held. So the names and shapes in the files are compared with those of the architecture before vLLM reads them:

    check_weights("checkpoints/weak")   # ValueError: ... misses model.layers.3.mlp.up_proj.weight
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

INDEX = "model.safetensors.index.json"
# Written by old versions of transformers; computed from the configuration since.
_COMPUTED = ("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached")

Shapes = dict[str, tuple[int, ...]]


def check_weights(path: str | Path) -> None:
    """Raise `ValueError` when weights are missing, are there in addition, or have another shape."""
    needed, tied = architecture_shapes(path)
    found = {name: shape for name, shape in stored_shapes(Path(path)).items() if not name.endswith(_COMPUTED)}
    _refuse(path, "misses", needed.keys() - found.keys() - tied)
    _refuse(path, "holds beyond its architecture", found.keys() - needed.keys())
    _refuse(path, "has another shape of", (name for name in found if found[name] != needed[name]))


def architecture_shapes(path: str | Path) -> tuple[Shapes, set[str]]:
    """Return the shapes of the weights by name, and which of them are another name of one that is stored."""
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
    stored = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return shapes, shapes.keys() - stored


def stored_shapes(path: Path) -> Shapes:
    """Return the shapes in the checkpoint's safetensors files; only their headers are read."""
    shapes: Shapes = {}
    for file in _files(path):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                shapes[name] = tuple(tensors.get_slice(name).get_shape())
    return shapes


def _files(path: Path) -> list[Path]:
    """The files that vLLM reads: those of the index, where there is one."""
    index = path / INDEX
    if index.is_file():
        return [path / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{path} holds no .safetensors weights")
    return files


def _refuse(path: str | Path, what: str, names: Iterable[str]) -> None:
    listed = sorted(names)
    if listed:
        more = f" and {len(listed) - 1} more" if len(listed) > 1 else ""
        raise ValueError(f"{path} {what} {listed[0]}{more}")
