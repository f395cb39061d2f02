"""Loading a model for decoding, and the checks that a model or a pair can be decoded at all.

The checks raise ValueError with the reason, before any time is spent:

    post = load_model(path, dtype="bfloat16", device="cuda")
    check_pair(post_tokenizer=t_post, pre_tokenizer=t_pre, post_config=post.config, pre_config=pre.config)
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from cong.errors import UserError
from cong.models.weights import about_files, first_line, load_checked

SUPPORTED_LAYERS = {"full_attention", "sliding_attention"}


def load_model(path: str | Path, *, dtype: str | torch.dtype, device: str | torch.device) -> PreTrainedModel:
    """A causal language model in evaluation mode, its weights frozen, on the device.

    Raises `UserError` when the checkpoint cannot be read, or does not hold every weight of the model and no others.
    """
    config = read_config(path)
    # SDPA has no soft cap on the attention scores; the models that need one (Gemma 2) get the exact eager path.
    needs_eager = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    attention = "eager" if needs_eager else "sdpa"
    model: Any = load_checked(AutoModelForCausalLM, path, dtype=dtype, attn_implementation=attention)
    return model.to(device).eval().requires_grad_(False)


def read_config(path: str | Path) -> PreTrainedConfig:
    """The configuration of a checkpoint; `UserError` when it is of no kind that is known here."""
    try:
        return AutoConfig.from_pretrained(path)
    except Exception as error:
        if not about_files(error):
            raise
        raise UserError(f"{path} cannot be loaded: {first_line(error)}") from error


def check_pair(
    *,
    post_tokenizer: PreTrainedTokenizerBase,
    pre_tokenizer: PreTrainedTokenizerBase,
    post_config: PreTrainedConfig,
    pre_config: PreTrainedConfig,
    names: tuple[str, str] = ("post-alignment", "pre-alignment"),
) -> None:
    """Refuse two models whose token ids mean different things; vocabularies padded to different sizes are fine.

    `names` are those of the two tokenizers in the refusal.
    """
    shared = common_vocab_size(post_config, pre_config)
    post, pre = _tokens_by_id(post_tokenizer, shared), _tokens_by_id(pre_tokenizer, shared)
    for token_id in sorted(post.keys() | pre.keys()):
        if post.get(token_id) != pre.get(token_id):
            raise ValueError(
                f"the pair does not share a vocabulary: token id {token_id} is {post.get(token_id)!r} in the "
                f"{names[0]} tokenizer and {pre.get(token_id)!r} in the {names[1]} tokenizer"
            )


def common_vocab_size(*configs: PreTrainedConfig) -> int:
    """Number of token ids that every model has a logit for."""
    return min(config.get_text_config().vocab_size for config in configs)


def common_positions(*configs: PreTrainedConfig) -> int:
    """Number of positions that every model was built for."""
    return min(_positions(config) for config in configs)


def common_max_context(*configs: PreTrainedConfig) -> int:
    """Number of positions in which every model gives a row the same, whatever the rows beside it.

    Fewer than its positions where a rope follows the longest row of a batch beyond some length ("dynamic", "longrope"):
    Phi-3.5 has 131,072 positions, and in its first 4,096 rows are independent.
    """
    ends = [end for end in (common_rope_end(*configs),) if end is not None]
    return min([common_positions(*configs), *ends])


def _positions(config: PreTrainedConfig) -> int:
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int):
        raise ValueError(f"{type(config).__name__} states no number of positions (max_position_embeddings)")
    return positions


def stop_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> frozenset[int]:
    """Ids that end a response: those of the model's generation config and the tokenizer's end-of-sequence token."""
    return end_token_ids(model.generation_config if model.generation_config is not None else model.config, tokenizer)


def end_token_ids(settings: Any, tokenizer: PreTrainedTokenizerBase | None) -> frozenset[int]:
    """The same from the settings alone, a generation config or a model's configuration."""
    ids = settings.eos_token_id
    found = set(ids) if isinstance(ids, list | tuple) else {ids}
    found.add(tokenizer.eos_token_id if tokenizer is not None else None)
    return frozenset(token_id for token_id in found if token_id is not None)


def check_decodable(model: PreTrainedModel, *, max_context: int) -> None:
    """Refuse a model that the slot engine would decode wrongly."""
    config = model.config.get_text_config()
    name = type(model).__name__
    if config.is_encoder_decoder:
        raise ValueError(f"{name} is an encoder-decoder model; only decoder-only models can be decoded in slots")
    unknown = set(getattr(config, "layer_types", None) or ()) - SUPPORTED_LAYERS
    if unknown:
        raise ValueError(f"{name} has layers of type {sorted(unknown)}; supported are {sorted(SUPPORTED_LAYERS)}")
    check_cached(model)
    if _biased_by_distance(config):
        raise ValueError(f"{name} tells positions by a bias of its own (ALiBi, local attention), not by position_ids")
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        raise ValueError(f"{name} takes no position_ids; rows of different lengths need them")
    _check_rope(config, name=name, max_context=max_context)


def check_cached(model: PreTrainedModel) -> None:
    """Refuse a model that keeps nothing of the tokens before, such as the first GPT."""
    if "past_key_values" not in inspect.signature(model.base_model.forward).parameters:
        raise ValueError(
            f"{type(model).__name__} has no cache of keys and values; decoding one token at a time needs it"
        )


def _biased_by_distance(config: Any) -> bool:
    """Whether attention depends on distances by other means than rotary or learned positions and windows."""
    local = "local" in (getattr(config, "attention_layers", None) or ())
    return local or bool(getattr(config, "alibi", False)) or getattr(config, "position_embedding_type", "") == "alibi"


def common_rope_end(*configs: PreTrainedConfig) -> int | None:
    """Number of positions behind which the rope of one of the models follows the longest row; None when none does."""
    ends = (trained for config in configs for _, trained in _following_ropes(config.get_text_config()))
    return min(ends, default=None)


def _check_rope(config: Any, *, name: str, max_context: int) -> None:
    """Frequencies that follow the longest row of a batch would make a row's text depend on its neighbours."""
    for kind, trained in _following_ropes(config):
        if max_context > trained:
            raise ValueError(
                f"{name} changes its {kind} rope beyond {trained} positions; set max_context to at most "
                f"{trained} (it is {max_context})"
            )


def _following_ropes(config: Any) -> list[tuple[str, int]]:
    """Kind and training length of every rope whose frequencies change behind it."""
    parameters = getattr(config, "rope_parameters", None) or {}
    by_layer_type = [value for value in parameters.values() if isinstance(value, dict)]
    found = []
    for rope in by_layer_type or [parameters]:
        if rope.get("rope_type") in ("dynamic", "longrope"):
            trained = rope.get("original_max_position_embeddings") or config.max_position_embeddings
            found.append((rope["rope_type"], trained))
    return found


def _tokens_by_id(tokenizer: PreTrainedTokenizerBase, size: int) -> dict[int, str]:
    return {token_id: token for token, token_id in tokenizer.get_vocab().items() if token_id < size}
