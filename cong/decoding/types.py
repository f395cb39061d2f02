"""The values that go into a decoding engine and come out of it.

A request that cannot be decoded never stops the others: `request_error` says what is wrong with it, and the engine
answers with a `Completion` whose `finish_reason` is "error".

    Request(row_id="p0", prompt_token_ids=(1, 17, 4), alpha=0.5)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_ALONE = "the backend 'transformers' decodes such rows one by one"


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How to decode. Temperature 0 is greedy; `pruning_threshold` (lambda, Eq. 8) and `scores` matter for F alone.

    Scores are processed in the order of Hugging Face `generate`: repetition penalty over prompt and response,
    temperature, top-k, top-p, min-p. For a pair they start from F, for a single model from its logits, and for an
    anchor that a pair tunes from z + w (z_r - z_ref).
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    pruning_threshold: float = 0.1
    scores: Literal["formula", "official"] = "formula"
    stop_strings: tuple[str, ...] = ()
    top_k: int | None = None

    def __post_init__(self) -> None:
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1")
        _require(0 <= self.temperature < float("inf"), "temperature", self.temperature, "in [0, inf)")
        _require(self.top_k is None or self.top_k >= 1, "top_k", self.top_k, "None or at least 1")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "in (0, 1]")
        _require(0 <= self.min_p <= 1, "min_p", self.min_p, "in [0, 1]")
        _require(0 < self.repetition_penalty < float("inf"), "repetition_penalty", self.repetition_penalty, "above 0")
        _require(0 <= self.pruning_threshold <= 1, "pruning_threshold", self.pruning_threshold, "in [0, 1]")
        _require(self.scores in ("formula", "official"), "scores", self.scores, "'formula' or 'official'")
        _require(all(self.stop_strings), "stop_strings", self.stop_strings, "a tuple of non-empty strings")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One row to decode. `max_new_tokens` may lower the limit of `Decoding`.

    `alpha` is used with a pair only, `weight` (w of proxy tuning) with a pair and an anchor only. Where the prompt ends
    with the beginning of a response, `drawn` is how many of the row's random numbers that has taken: a response that is
    decoded in parts is then the one that is decoded at once.
    """

    row_id: str
    prompt_token_ids: tuple[int, ...]
    seed: int = 0
    alpha: float = 1.0
    max_new_tokens: int | None = None
    drawn: int = 0
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A finished row. The log-probabilities are sums in nats under the unmodified models, stop token included.

    `token_ids` come without the stop token that ended the row: that is `stop_token_id`, None where none did.
    """

    row_id: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length", "error"]
    num_tokens: int
    logprob_post: float
    logprob_pre: float | None
    error: str | None = None
    stop_token_id: int | None = None
    logprob_anchor: float | None = None


def request_error(request: Request, *, decoding: Decoding, vocab_size: int, max_context: int, pair: bool) -> str | None:
    """What is wrong with the request, or None."""
    prompt = request.prompt_token_ids
    limit = _asked(request, decoding)
    if not prompt:
        return "the prompt is empty"
    if len(prompt) >= max_context:
        return f"the prompt has {len(prompt)} tokens; at most {max_context - 1} leave room for one token of response"
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        bad = min(prompt) if min(prompt) < 0 else max(prompt)
        return f"token id {bad} is outside the vocabulary [0, {vocab_size - 1}]"
    if pair and not 0 <= request.alpha <= 1:
        return f"alpha {request.alpha} is outside [0, 1]"
    if not math.isfinite(request.weight):
        return f"weight {request.weight} is not finite"
    if not 1 <= limit <= decoding.max_new_tokens:
        return f"max_new_tokens {limit} is outside [1, {decoding.max_new_tokens}]"
    if request.drawn < 0:
        return f"drawn {request.drawn} is below 0"
    return None


def token_limit(request: Request, *, decoding: Decoding, max_context: int) -> int:
    """How many tokens the row may generate: its own limit, cut where the context ends."""
    return min(_asked(request, decoding), max_context - len(request.prompt_token_ids))


def _asked(request: Request, decoding: Decoding) -> int:
    return decoding.max_new_tokens if request.max_new_tokens is None else request.max_new_tokens


def error_completion(request: Request, error: str) -> Completion:
    """The answer to a request that cannot be decoded."""
    return Completion(
        row_id=request.row_id,
        token_ids=(),
        finish_reason="error",
        num_tokens=0,
        logprob_post=0.0,
        logprob_pre=None,
        error=error,
    )


def finished_completion(
    request: Request,
    *,
    tokens: Sequence[int],
    stop_token_ids: frozenset[int],
    stopped_by_string: bool,
    logprob_post: float,
    logprob_pre: float | None = None,
    logprob_anchor: float | None = None,
    decoding: Decoding,
    rope_end: int | None = None,
) -> Completion:
    """The answer to a decoded request; `tokens` are all generated ones, a closing stop token among them.

    A log-probability that is infinite or no number makes it an error: no reward can be computed of it. So does a
    response that is still going on at `rope_end`, where a model begins to see all positions in another way.
    """
    stop_token = bool(tokens) and tokens[-1] in stop_token_ids
    finish_reason = "stop" if stop_token or stopped_by_string else "length"
    reached = rope_end is not None and len(request.prompt_token_ids) + len(tokens) >= rope_end
    if reached and finish_reason == "length" and len(tokens) < _asked(request, decoding):
        return error_completion(request, f"the response reaches {rope_end} positions, where the rope changes: {_ALONE}")
    for name, value in (("pi_r", logprob_post), ("pi_ref", logprob_pre), ("the anchor", logprob_anchor)):
        if value is not None and not math.isfinite(value):
            return error_completion(request, f"the log-probability of the response under {name} is {value}")
    return Completion(
        row_id=request.row_id,
        token_ids=tuple(tokens[:-1] if stop_token else tokens),
        finish_reason=finish_reason,
        num_tokens=len(tokens),
        logprob_post=logprob_post,
        logprob_pre=logprob_pre,
        stop_token_id=tokens[-1] if stop_token else None,
        logprob_anchor=logprob_anchor,
    )


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; it must be {allowed}")
