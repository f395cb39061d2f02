"""LoRA adapters as the output of a stage: who reads them gets whole weights, merged on the fly, or shares their base.

    base = adapter_base(model)               # the model on which a stage trained an adapter; None for whole weights
    merge(base_dir, adapter_dir, target)     # W + (alpha / rank) B A, a checkpoint like any other

An adapter on an adapter is merged from the first on. A merged checkpoint lies in the reading stage's scratch, and goes
when that stage is complete.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.graph.stage import Stage
from cong.models.weightfiles import tensor_shapes

ADAPTER_CONFIG = "adapter_config.json"
_OWN_FILES = (ADAPTER_CONFIG, "adapter_model.safetensors", "config.json")


def holds_adapter(directory: Path) -> bool:
    """Return whether a directory holds a LoRA adapter, in place of whole weights."""
    return (directory / ADAPTER_CONFIG).is_file()


def adapter_base(model: Any) -> Any:
    """Return the model on which a stage trains an adapter, None for everything that has whole weights."""
    trains_adapter = isinstance(model, Stage) and getattr(model, "lora", None) is not None
    return getattr(model, "base", None) if trains_adapter else None


def merge(base: Path, adapter: Path, target: Path) -> None:
    """Write the checkpoint of a base with its adapter; tokenizer and generation settings are the adapter's.

    Weights are in the dtype of the base's; the product is added in float32. `target` appears whole or not at all.
    Raises `UserError` when the two do not fit.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from cong.models.weights import first_line, load_checked, make_savable

    model = load_checked(AutoModelForCausalLM, base, dtype="auto")
    try:
        wrapped: Any = PeftModel.from_pretrained(model, str(adapter))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the adapter {adapter} does not fit its base {base}: {first_line(error)}") from error
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    merged = wrapped.merge_and_unload(safe_merge=True)
    make_savable(merged)
    merged.save_pretrained(partial)
    for path in adapter.iterdir():
        if path.is_file() and path.name not in _OWN_FILES:
            shutil.copy(path, partial)
    partial.rename(target)


def check_fits(adapter: Path, base: Path) -> None:
    """Raise `UserError` when a matrix of an adapter takes other inputs than the layer of the base that it belongs to.

    Only the heads of the files are read; layers that have other names in them are compared when they are loaded.
    """
    shapes = tensor_shapes(base)
    for name, shape in tensor_shapes(adapter).items():
        inner, matrix, _ = name.removeprefix("base_model.model.").partition(".lora_A.")
        weight = shapes.get(f"{inner}.weight") if matrix else None
        if weight is not None and shape[-1] not in weight:
            raise UserError(
                f"the adapter {adapter} was not trained on {base}: its matrix for {inner} takes {shape[-1]} inputs, "
                f"and the layer has a weight of {' x '.join(map(str, weight))}"
            )


def name_base(directory: Path, *, base: str) -> None:
    """Write into an adapter's configuration on what it was trained, in place of a path of this machine."""
    path = directory / ADAPTER_CONFIG
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"base_model_name_or_path": base}, indent=1) + "\n", encoding="utf-8")
