"""The slot engine: a fixed number of rows, each refilled with the next request as soon as its response ends.

All rows advance by one token per forward pass of each model, whatever their lengths; a static cache per row and
per-row positions replace padding. Prompts are prefilled without their last token, which the row's first step feeds:
so a prefill needs no vocabulary head, and requests that share a prompt (several alphas, several samples) share it.

    engine = SlotEngine(post=post, pre=pre, tokenizer=tokenizer, decoding=Decoding(max_new_tokens=256))
    for completion in engine.decode(requests):
        print(completion.row_id, tokenizer.decode(completion.token_ids))
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cong.decoding.backbone import Backbone, prefill_groups
from cong.decoding.cache import SlotCache
from cong.decoding.choose import choose_tokens, penalize_repetition
from cong.decoding.models import check_decodable, common_max_context, common_vocab_size, stop_token_ids
from cong.decoding.rows import Queue, Row, SlotStats
from cong.decoding.score import contrastive_scores, log_probs
from cong.decoding.state import SlotState
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


class SlotEngine:
    """Decodes a stream of requests with one model, or contrastively with a pair (`pre` given).

    `steps_per_sync` is how many steps pass between two looks of the host at the finished flags: 1 wastes no step,
    more hides the latency of a device. It changes speed only, never the text.
    """

    def __init__(
        self,
        *,
        post: PreTrainedModel,
        pre: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None,
        decoding: Decoding,
        slots: int = 64,
        max_context: int | None = None,
        steps_per_sync: int | None = None,
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots is {slots}; it must be at least 1")
        models = [post] if pre is None else [post, pre]
        configs = [model.config for model in models]
        longest = common_max_context(*configs)
        if max_context is not None and not 2 <= max_context <= longest:
            raise ValueError(f"max_context is {max_context}; it must be in [2, {longest}] for these models")
        self.max_context = max_context or longest
        for model in models:
            check_decodable(model, max_context=self.max_context)
        self.decoding, self.slots, self.pair = decoding, slots, pre is not None
        self.vocab_size = common_vocab_size(*configs)
        self.stop_token_ids = stop_token_ids(post, tokenizer)
        self.device = post.device
        self.steps_per_sync = steps_per_sync or (1 if self.device.type == "cpu" else 8)
        self.refill_at = max(1, slots // 16)
        self.stats = SlotStats()
        self._stop_strings = StopStrings(decoding.stop_strings, tokenizer=tokenizer)
        self._backbones = [Backbone(model, self._new_cache(model)) for model in models]
        self._state = SlotState(
            slots=slots,
            vocab_size=self.vocab_size,
            decoding=decoding,
            stop_token_ids=self.stop_token_ids,
            device=self.device,
        )
        self._rows: dict[int, Row] = {}
        self._prompts: dict[int, tuple[int, ...]] = {}  # whose prefill a slot's cache starts with

    def decode(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions in the order in which rows finish; a request that cannot be decoded comes back as an error."""
        # An earlier stream may have been abandoned midway, and the weights may have changed since.
        self._rows.clear()
        self._prompts.clear()
        self._state.active_S.zero_()
        queue = Queue(iter(requests))
        while True:
            yield from self._refill(queue)
            if not self._rows:
                return
            if queue.exhausted:
                self._compact()
            self._advance(queued=not queue.exhausted)
            yield from self._collect()

    def _new_cache(self, model: PreTrainedModel) -> SlotCache:
        layers = model.config.get_text_config().num_hidden_layers
        return SlotCache(layers=layers, slots=self.slots, capacity=min(64, self.max_context), limit=self.max_context)

    def _refill(self, queue: Queue) -> Iterator[Completion]:
        """Fill the free slots. A few at a time share one prefill pass, which costs fewer slot-steps than it saves."""
        free = [slot for slot in range(self.slots) if slot not in self._rows]
        if queue.exhausted or (self._rows and len(free) < self.refill_at):
            return
        admitted: list[tuple[int, Request]] = []
        while len(admitted) < len(free) and (request := queue.take()) is not None:
            error = self._error(request)
            if error is None:
                admitted.append((free[len(admitted)], request))
            else:
                yield error_completion(request, error)
        if admitted:
            self._admit(admitted)

    def _error(self, request: Request) -> str | None:
        return request_error(
            request,
            decoding=self.decoding,
            vocab_size=self.vocab_size,
            max_context=self.max_context,
            pair=self.pair,
        )

    @torch.inference_mode()
    def _admit(self, admitted: Sequence[tuple[int, Request]]) -> None:
        """Prefill the prompts that no slot holds yet, copy the others, and start the rows."""
        limits = [token_limit(r, decoding=self.decoding, max_context=self.max_context) for _, r in admitted]
        longest = max(len(r.prompt_token_ids) + limit for (_, r), limit in zip(admitted, limits, strict=True))
        for backbone in self._backbones:
            backbone.cache.reserve(longest)
        for slot, _ in admitted:
            self._prompts.pop(slot, None)
        holders = {prompt: slot for slot, prompt in self._prompts.items()}
        fresh: list[tuple[int, tuple[int, ...]]] = []
        copies: list[tuple[int, int]] = []
        for (slot, request), limit in zip(admitted, limits, strict=True):
            prefix = request.prompt_token_ids[:-1]
            if prefix in holders:
                copies.append((holders[prefix], slot))
            elif prefix:
                fresh.append((slot, prefix))
                holders[prefix] = slot
            self._prompts[slot] = prefix
            self._rows[slot] = Row(request=request, limit=limit)
        self._prefill(fresh)
        self._share(copies)
        self._state.admit([slot for slot, _ in admitted], [request for _, request in admitted], limits)

    def _prefill(self, fresh: list[tuple[int, tuple[int, ...]]]) -> None:
        for group in prefill_groups(fresh):
            longest = len(group[-1][1])
            # Padding on the right: causal attention hides it, and the row's own tokens overwrite it later.
            padded = [prefix + (0,) * (longest - len(prefix)) for _, prefix in group]
            tokens_PL = torch.tensor(padded, device=self.device)
            slots_P = torch.tensor([slot for slot, _ in group], device=self.device)
            for backbone in self._backbones:
                backbone.prefill(tokens_PL, slots_P)
            self.stats.prefilled_tokens += sum(len(prefix) for _, prefix in group)

    def _share(self, copies: list[tuple[int, int]]) -> None:
        if not copies:
            return
        longest = max(len(self._prompts[source]) for source, _ in copies)
        self._copy_cache(copies, length=longest)
        self.stats.shared_prefills += len(copies)

    def _copy_cache(self, pairs: Sequence[tuple[int, int]], *, length: int) -> tuple[Tensor, Tensor]:
        source_P, target_P = torch.tensor(pairs, device=self.device).unbind(dim=1)
        for backbone in self._backbones:
            backbone.cache.copy_rows(source_P, target_P, length=length)
        return source_P, target_P

    @torch.inference_mode()
    def _compact(self) -> None:
        """Once nothing waits any more, gather the remaining rows in the lowest slots, so that steps become smaller."""
        count, highest = len(self._rows), max(self._rows)
        if 4 * count > 3 * (highest + 1):
            return
        free = [slot for slot in range(count) if slot not in self._rows]
        pairs = list(zip([slot for slot in sorted(self._rows) if slot >= count], free, strict=True))
        source_P, target_P = self._copy_cache(pairs, length=max(row.cached for row in self._rows.values()))
        self._state.copy_rows(source_P, target_P)
        for source, target in pairs:
            self._rows[target] = self._rows.pop(source)
            self._prompts[target] = self._prompts.pop(source)

    @torch.inference_mode()
    def _advance(self, *, queued: bool) -> None:
        """Run a few steps and learn how far every row has come."""
        steps = min(self.steps_per_sync, max(row.limit - row.generated for row in self._rows.values()))
        rows = max(self._rows) + 1
        used = max(row.cached for row in self._rows.values())
        for _ in range(steps):
            used = min(used + 1, self._backbones[0].cache.capacity)
            self._step(rows=rows, used=used)
        generated = self._state.generated_S[:rows].tolist()
        useful = 0
        for slot, row in self._rows.items():
            useful += generated[slot] - row.generated
            row.generated = generated[slot]
        self.stats.count(steps=steps, rows=rows, slots=self.slots, useful=useful, queued=queued)

    def _step(self, *, rows: int, used: int) -> None:
        """One token for the first `rows` slots; `used` columns of the cache hold every row's tokens."""
        state = self._state
        logits = [
            backbone.step(
                state.token_S[:rows],
                rows_B=state.index_S[:rows],
                position_B=state.length_S[:rows],
                used=used,
            )
            for backbone in self._backbones
        ]
        # Normalised over each model's own vocabulary, then cut to the ids that both have.
        logprobs = [log_probs(logits_BV)[:, : self.vocab_size] for logits_BV in logits]
        token_B = self._choose(logits[0], logprobs)
        chosen = [logprobs_BV.gather(1, token_B.unsqueeze(1)).squeeze(1) for logprobs_BV in logprobs]
        state.record(token_B, post_logprob_B=chosen[0], pre_logprob_B=chosen[1] if self.pair else None)

    def _choose(self, post_logits_BV: Tensor, logprobs: Sequence[Tensor]) -> Tensor:
        state, decoding, rows = self._state, self.decoding, len(post_logits_BV)
        if self.pair:
            scores_BV = contrastive_scores(
                logprobs[0],
                logprobs[1],
                alpha=state.alpha_S[:rows],
                pruning_threshold=decoding.pruning_threshold,
                scores=decoding.scores,
            )
        else:
            scores_BV = post_logits_BV[:, : self.vocab_size].float()
        if state.seen_SV is not None:
            scores_BV = penalize_repetition(
                scores_BV, seen_BV=state.seen_SV[:rows], penalty=decoding.repetition_penalty
            )
        uniform_B = None
        if state.uniform_ST is not None:
            uniform_B = state.uniform_ST[state.index_S[:rows], state.generated_S[:rows]]
        return choose_tokens(scores_BV, decoding=decoding, uniform_B=uniform_B)

    def _collect(self) -> Iterator[Completion]:
        """Completions of the rows that have ended, whose slots become free."""
        active = self._state.active_S.tolist()
        candidates = [slot for slot in self._rows if not active[slot] or self._stop_strings]
        if not candidates:
            return
        longest = max(self._rows[slot].generated for slot in candidates)
        index_P = torch.tensor(candidates, device=self.device)
        tokens = self._state.tokens_ST[index_P, :longest].tolist()
        finished: list[tuple[int, int, bool]] = []
        for slot, row_tokens in zip(candidates, tokens, strict=True):
            row = self._rows[slot]
            end = self._stop_strings.end(row_tokens[: row.generated], searched=row.searched)
            row.searched = row.generated
            if end is not None or not active[slot]:
                finished.append((slot, end or row.generated, end is not None))
        yield from self._finish(finished, dict(zip(candidates, tokens, strict=True)))

    def _finish(self, finished: Sequence[tuple[int, int, bool]], tokens: dict[int, list[int]]) -> Iterator[Completion]:
        """Completions of (slot, number of tokens, ended by a stop string)."""
        for slot, count, stopped_by_string in finished:
            self._state.active_S[slot] = False
            request = self._rows.pop(slot).request
            yield finished_completion(
                request,
                tokens=tokens[slot][:count],
                stop_token_ids=self.stop_token_ids,
                stopped_by_string=stopped_by_string,
                logprob_post=self._state.post_logprob_ST[slot, :count].double().sum().item(),
                logprob_pre=self._state.pre_logprob_ST[slot, :count].double().sum().item() if self.pair else None,
            )
