"""Dropout is off in training, as it is in the passes of frozen models: both then see one and the same policy.

A checkpoint whose configuration sets a dropout would otherwise begin preference training at a margin that is not 0. The
trained model's configuration keeps what the initial model's says. The dropout of an adapter is a setting of its own,
and stays: the reference is the model without the adapter.

    with no_dropout(trainer.model):
        trainer.train()
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

_MARKS = ("drop", "jitter")
"""In the names of what makes a pass random: attention_dropout, resid_pdrop, layerdrop, router_jitter_noise."""
_ADAPTER = "lora_dropout"


@contextlib.contextmanager
def no_dropout(model: nn.Module) -> Iterator[None]:
    """Set every dropout of a model, its modules and their configurations to 0, and back at the end."""
    found = [(holder, name, holder[name]) for holder in _holders(model) for name in _rates(holder)]
    own = ((name, module) for name, module in model.named_modules() if _ADAPTER not in name)
    layers = [(module, module.p) for _, module in own if isinstance(module, nn.modules.dropout._DropoutNd)]
    for holder, name, _ in found:
        holder[name] = 0.0
    for layer, _ in layers:
        layer.p = 0.0
    try:
        yield
    finally:
        for holder, name, rate in found:
            holder[name] = rate
        for layer, rate in layers:
            layer.p = rate


def _holders(model: nn.Module) -> list[dict[str, Any]]:
    """Return the attributes of all modules and of the configurations that they read, each once."""
    holders = {id(vars(module)): vars(module) for module in model.modules()}
    waiting = list(holders.values())
    while waiting:
        for value in list(waiting.pop().values()):
            if _is_config(value) and id(vars(value)) not in holders:
                holders[id(vars(value))] = vars(value)
                waiting.append(vars(value))
    return list(holders.values())


def _is_config(value: Any) -> bool:
    from transformers import PreTrainedConfig

    return isinstance(value, PreTrainedConfig)


def _rates(holder: dict[str, Any]) -> list[str]:
    rates = [name for name, value in holder.items() if isinstance(value, int | float) and not isinstance(value, bool)]
    return [name for name in rates if holder[name] and any(mark in name.lower() for mark in _MARKS)]
