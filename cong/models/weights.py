"""Loading a checkpoint so that every weight of the model comes from its files, or not at all.

transformers fills weights that a checkpoint lacks with random numbers, leaves out those that it has no place for, and
reports both in a log. Here such a checkpoint is refused, with the first names, wherever a model is loaded:

    model = load_checked(AutoModelForCausalLM, path, dtype="bfloat16", attn_implementation="sdpa")

Weights that share memory by the configuration (tied embeddings) need to be stored once only.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cong.errors import UserError

_COMPUTED = (".inv_freq", ".cos_cached", ".sin_cached", ".attn.bias", ".attn.masked_bias", ".attention.bias",
             ".attention.masked_bias", ".position_ids")  # fmt: skip
"""Buffers that old versions of transformers stored, and that every model computes from its configuration."""
_OTHER_HEADS = ("lm_head.", "embed_out.")
"""What a classifier that was made of a language model may still hold, and never uses."""
_NAMED = 3


def load_checked(architecture: Any, path: str | Path, **options: Any) -> Any:
    """Return `architecture.from_pretrained(path, **options)` on its device, with the stored weights and no others.

    Raises `UserError` in one line when weights are missing, have another shape, or have no place in the model, and when
    the files or the configuration cannot be read.
    """
    try:
        with _without_report():
            model, report = architecture.from_pretrained(
                path, **options, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except Exception as error:
        if not about_files(error):
            raise
        raise UserError(f"{path} cannot be loaded: {first_line(error)}") from error
    fault = loading_fault(report, classifier=not hasattr(model, "lm_head") and not model.can_generate())
    if fault is not None:
        raise UserError(f"{path} does not fit {type(model).__name__}: it {fault}")
    return model


def make_savable(model: Any) -> None:
    """Let a model be saved whose generation settings transformers refuses to write, such as those of many a checkpoint.

    What the initial model says is copied beside the trained one afterwards; where it says nothing, the end tokens stay.
    """
    from transformers import GenerationConfig

    settings = model.generation_config
    if settings is None:
        return
    try:
        settings.validate(strict=True)
    except ValueError:
        kept = {name: getattr(settings, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**kept)


def loading_fault(report: Any, *, classifier: bool = False) -> str | None:
    """Return what is wrong by a loading report of transformers, None when every weight is the stored one."""
    mismatched = [f"{name} {tuple(stored)} for {tuple(wanted)}" for name, stored, wanted in report["mismatched_keys"]]
    ignored = _OTHER_HEADS if classifier else ()
    beyond = [
        name for name in report["unexpected_keys"] if not name.endswith(_COMPUTED) and not name.startswith(ignored)
    ]
    faults = {
        "misses": report["missing_keys"],
        "has another shape of": mismatched,
        "holds what has no place there:": beyond,
    }
    described = [f"{what} {some_of(names)}" for what, names in faults.items() if names]
    return ", and ".join(described) or (first_line(report["error_msgs"][0]) if report["error_msgs"] else None)


def some_of(names: Iterable[str]) -> str:
    """Return the first names in order, and how many more there are."""
    ordered = sorted(names)
    more = len(ordered) - _NAMED
    return ", ".join(ordered[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def first_line(error: Any) -> str:
    """Return the first line of a message that has text, with the class where an exception says nothing else."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines and lines[0].endswith(":") else next(iter(lines), type(error).__name__)


def about_files(error: Exception) -> bool:
    """Tell errors that a checkpoint causes from those of the machine: no memory is no fault of the files."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from torch import OutOfMemoryError

    known = (SafetensorError, StrictDataclassError, OSError, ValueError, KeyError, RuntimeError, ImportError)
    return isinstance(error, known) and not isinstance(error, OutOfMemoryError | UserError)


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep the table of transformers out of the log: what it says becomes one line here."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
