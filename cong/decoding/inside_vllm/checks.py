"""What a weak pair inside vLLM cannot do, and why: each refused with its reason before anything is decoded.

Only attributes are looked at and vLLM is not imported, so that the rules hold (and are tested) without it.

    check_engine(vllm_config)      # when vLLM builds the model
    check_request(sampling_params) # when a request comes in
"""

from typing import Any

SETTINGS: dict[str, Any] = {"cd_ref": None, "cd_alpha": 1.0, "cd_threshold": 0.1, "cd_scores": "formula"}
"""What `hf_overrides` say of the pair, with the defaults."""
GUARD = "cong.decoding.inside_vllm.guard:HeadOnly"
_OVERRIDES = {"architectures", "head_dtype", *SETTINGS}
_SHAPES = ("model_type", "num_key_value_heads", "head_dim", "sliding_window")
_CPU_BLOCK = 32


def check_engine(config: Any) -> None:
    """Raise `ValueError` when vLLM was started with something that would decode a pair wrongly."""
    for refused, reason in _engine_faults(config):
        if refused:
            raise ValueError(f"a contrastive pair cannot be decoded so: {reason}")


def _engine_faults(config: Any) -> list[tuple[bool, str]]:
    model, parallel = config.model_config, config.parallel_config
    given = model.hf_overrides if isinstance(model.hf_overrides, dict) else {}
    beyond = sorted(given.keys() - _OVERRIDES)
    guarded = any(GUARD in (item, _qualified(item)) for item in model.logits_processors or ())
    block = config.cache_config.block_size
    return [
        (parallel.pipeline_parallel_size > 1, "pipeline parallelism passes on the hidden states of one model"),
        (config.lora_config is not None, "LoRA would adapt both models; merge the adapter into its checkpoint"),
        (
            config.speculative_config is not None,
            "speculative decoding accepts tokens by the distribution of one model and skips logits processors",
        ),
        (model.quantization is not None, "quantized weights cannot be compared with what the architecture asks for"),
        (model.enable_prompt_embeds, "an embedding given from outside belongs to one of the two models"),
        (bool(beyond), f"hf_overrides {beyond} would reach pi_r alone; change both config.json files instead"),
        (not guarded, f"start vLLM with --logits-processors {GUARD}, which refuses what would emit token 0 silently"),
        (
            config.device_config.device_type == "cpu" and block is not None and block % _CPU_BLOCK != 0,
            f"vLLM's attention on a CPU takes blocks of a multiple of {_CPU_BLOCK} tokens, not {block}",
        ),
    ]


def _qualified(item: Any) -> str:
    return f"{item.__module__}:{item.__qualname__}" if isinstance(item, type) else str(item)


def check_alike(post: Any, pre: Any, *, max_context: int) -> None:
    """Raise `ValueError` unless the caches of both models have one shape, and both have the positions."""
    for name in _SHAPES:
        first, second = getattr(post, name, None), getattr(pre, name, None)
        if first != second:
            raise ValueError(f"{name} is {first!r} in pi_r and {second!r} in pi_ref; their caches share vLLM's blocks")
    positions = min(post.max_position_embeddings, pre.max_position_embeddings)
    if max_context > positions:
        raise ValueError(f"max_model_len is {max_context}; the pair has positions for {positions} tokens")


def check_request(params: Any) -> None:
    """Raise `ValueError` when a request restricts the tokens: none of those allowed may lie in V_head.

    All scores are then -inf, and vLLM would emit token 0 without a word.
    """
    restricting = {
        "structured_outputs": params.structured_outputs is not None,
        "allowed_token_ids": bool(params.allowed_token_ids),
        "bad_words": bool(params.bad_words),
        "min_tokens": bool(params.min_tokens),
    }
    for name, given in restricting.items():
        if given:
            raise ValueError(
                f"{name} cannot be used with a contrastive pair: where every allowed token lies outside of V_head, "
                "nothing is left to choose from"
            )
    if params.prompt_logprobs is not None:
        raise ValueError("prompt_logprobs would be those of F, a score, and not of a model; score with `cong` instead")
