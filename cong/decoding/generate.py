"""The reference backend: Hugging Face `generate` on one model, or on several dressed up as one model.

Slower than the slot engine and simpler: left-padded batches that last until their longest row ends. It shares with
the slot engine the score and the choice of a token, not the bookkeeping, the cache or the log-probabilities.

    engine = GenerateEngine(post=post, pre=pre, tokenizer=tokenizer, decoding=Decoding(max_new_tokens=64))
    completions = list(engine.decode(requests))
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from cong.decoding.choose import choose_tokens, row_uniforms
from cong.decoding.combine import combined
from cong.decoding.dressed import DressedModels
from cong.decoding.logprobs import left_pad, teacher_forced_logprobs
from cong.decoding.models import (
    check_cached,
    common_positions,
    common_rope_end,
    common_vocab_size,
    stop_token_ids,
)
from cong.decoding.stopping import StopStrings
from cong.decoding.types import (
    Completion,
    Decoding,
    Request,
    error_completion,
    finished_completion,
    request_error,
    token_limit,
)


class GenerateEngine:
    """Decodes batches of `batch_size` requests with `generate`; the same `decode` as the slot engine."""

    def __init__(
        self,
        *,
        post: PreTrainedModel,
        pre: PreTrainedModel | None = None,
        anchor: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None,
        decoding: Decoding,
        batch_size: int = 64,
        max_context: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        self._combination, self.models = combined(anchor=anchor, post=post, pre=pre, decoding=decoding)
        for model in self.models:
            check_cached(model)
        configs = [model.config for model in self.models]
        self.vocab_size = common_vocab_size(*configs)
        self.max_context = max_context or common_positions(*configs)
        # A rope that follows the longest row, padding included, leaves rows as they are when each stands alone.
        self._rope_end = common_rope_end(*configs)
        self.batch_size = batch_size if self._rope_end is None else 1
        self.decoding = decoding
        self.decoded_tokens = 0
        """New tokens since the engine was built, counted when a batch ends."""
        self.stop_token_ids = stop_token_ids(self.models[0], tokenizer)
        self._stop_strings = StopStrings(decoding.stop_strings, tokenizer=tokenizer)
        self._dressed = None if len(self.models) == 1 else DressedModels(self.models, combination=self._combination)

    def decode(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions batch by batch; a request that cannot be decoded comes back as an error."""
        source = iter(requests)
        while batch := list(islice(source, self.batch_size)):
            good = []
            for request in batch:
                error = self._error(request)
                if error is None:
                    good.append(request)
                else:
                    yield error_completion(request, error)
            if good:
                yield from self._completions(good)

    def _error(self, request: Request) -> str | None:
        return request_error(
            request,
            decoding=self.decoding,
            vocab_size=self.vocab_size,
            max_context=self.max_context,
            pair=len(self.models) == 2,
        )

    def _completions(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Tokens from `generate`, log-probabilities from a separate teacher-forced pass of each model."""
        tokens, stopped = self._generate(requests)
        self.decoded_tokens += sum(map(len, tokens))
        prompts = [request.prompt_token_ids for request in requests]
        logprobs: dict[str, Any] = {
            f"logprob_{role}": teacher_forced_logprobs(
                model, prompts=prompts, completions=tokens, batch_size=self.batch_size
            )
            for role, model in zip(self._combination.roles, self.models, strict=True)
        }
        for index, request in enumerate(requests):
            yield finished_completion(
                request,
                tokens=tokens[index],
                stop_token_ids=self.stop_token_ids,
                stopped_by_string=stopped[index],
                decoding=self.decoding,
                **{name: values[index] for name, values in logprobs.items()},
            )

    @torch.inference_mode()
    def _generate(self, requests: Sequence[Request]) -> tuple[list[list[int]], list[bool]]:
        """Generated tokens of every request, and whether a stop string ended them."""
        device = self.models[0].device
        tokens_BL, mask_BL = left_pad([request.prompt_token_ids for request in requests], device=device)
        width = tokens_BL.shape[1]
        limits = [token_limit(r, decoding=self.decoding, max_context=self.max_context) for r in requests]
        ends = _RowEnds(width=width, limits=limits, stop_strings=self._stop_strings)
        model: Any = self.models[0]
        if self._dressed is not None:
            given = [float(self._combination.coefficient(request)) for request in requests]
            self._dressed.coefficient = torch.tensor(given, device=device)
            model = self._dressed
        with _neutral_generation_config(model):
            output_BL = model.generate(
                input_ids=tokens_BL,
                attention_mask=mask_BL,
                generation_config=self._generation_config(max(limits), width=width),
                logits_processor=LogitsProcessorList(self._choice(requests, width)),
                stopping_criteria=StoppingCriteriaList([ends]),
            )
        rows = [row[:limit] for row, limit in zip(output_BL[:, width:].tolist(), limits, strict=True)]
        cut = [self._cut(row) for row in rows]
        return [row for row, _ in cut], [stopped for _, stopped in cut]

    def _generation_config(self, max_new_tokens: int, *, width: int) -> GenerationConfig:
        return GenerationConfig(
            # Behind the rope's end all keys change with every token, and none can be kept.
            use_cache=self._rope_end is None or width + max_new_tokens <= self._rope_end,
            max_new_tokens=max_new_tokens,
            do_sample=False,  # a seeded choice is made by `_SeededChoice`
            num_beams=1,
            repetition_penalty=self.decoding.repetition_penalty,
            eos_token_id=sorted(self.stop_token_ids) or None,
            pad_token_id=min(self.stop_token_ids, default=0),
        )

    def _choice(self, requests: Sequence[Request], width: int) -> list[LogitsProcessor]:
        if self.decoding.temperature == 0:
            return []
        count = self.decoding.max_new_tokens
        uniforms = [row_uniforms(request.seed, count, start=request.drawn) for request in requests]
        return [_SeededChoice(decoding=self.decoding, width=width, uniform_BT=torch.stack(uniforms))]

    def _cut(self, tokens: list[int]) -> tuple[list[int], bool]:
        """Drop what `generate` wrote behind the end of a row; true if a stop string was that end."""
        stop = next((i + 1 for i, token in enumerate(tokens) if token in self.stop_token_ids), len(tokens))
        end = self._stop_strings.end(tokens[:stop], searched=0)
        return tokens[: end or stop], end is not None


class _SeededChoice(LogitsProcessor):
    """Leaves only the token that the row's uniform number selects, so that the argmax takes it."""

    def __init__(self, *, decoding: Decoding, width: int, uniform_BT: Tensor) -> None:
        self.decoding, self.width, self.uniform_BT = decoding, width, uniform_BT

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        uniform_B = self.uniform_BT[:, input_ids.shape[1] - self.width].to(scores.device)
        token_B1 = choose_tokens(scores, decoding=self.decoding, uniform_B=uniform_B).unsqueeze(1)
        return torch.full_like(scores, -torch.inf).scatter(1, token_B1, 0.0)


class _RowEnds(StoppingCriteria):
    """Ends a row at its own limit or at a stop string."""

    def __init__(self, *, width: int, limits: Sequence[int], stop_strings: StopStrings) -> None:
        self.width, self.limits, self.stop_strings = width, limits, stop_strings

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        count = input_ids.shape[1] - self.width
        done = [count >= limit for limit in self.limits]
        if self.stop_strings:
            rows = input_ids[:, self.width :].tolist()
            done = [
                end or self.stop_strings.end(row, searched=count - 1) is not None
                for end, row in zip(done, rows, strict=True)
            ]
        return torch.tensor(done, device=input_ids.device)


@contextmanager
def _neutral_generation_config(model: Any) -> Iterator[None]:
    """Keep the checkpoint's own generation settings (sampling, penalties) out of what `Decoding` says."""
    before = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before
