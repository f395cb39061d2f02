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
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cong.decoding.backbone import Backbone, reads_own_columns
from cong.decoding.bands import Band, band_width, bands, moves
from cong.decoding.cache import SlotCache
from cong.decoding.combine import combined
from cong.decoding.graphs import CudaCapture, GraphedSteps
from cong.decoding.models import check_decodable, common_max_context, common_rope_end, common_vocab_size, stop_token_ids
from cong.decoding.prefixes import Prefixes
from cong.decoding.rows import Queue, Row, SlotStats
from cong.decoding.sizing import default_slots
from cong.decoding.state import SlotState
from cong.decoding.step import Step
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
from cong.models.memory import PREFILL_TOKENS

FEWEST_PREFILL_TOKENS = 256


class SlotEngine:
    """Decodes a stream of requests with one model, with a pair (`pre` given), or with an `anchor` that a pair tunes.

    `slots` is how many rows advance together; without it the free memory of the device decides. `prefill_tokens`
    bounds the padded tokens of one prefill pass; a longer prompt takes several. `steps_per_sync` is how many steps
    pass between two looks of the host at the finished flags: 1 wastes no step, more hides the latency of a device.
    `cuda_graphs` replays captured steps. When memory runs out, slots and passes are halved and the rows that were not
    finished start again. None of this changes the text, but for the rounding of bfloat16 on a GPU.
    """

    def __init__(
        self,
        *,
        post: PreTrainedModel,
        pre: PreTrainedModel | None = None,
        anchor: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None,
        decoding: Decoding,
        slots: int | None = None,
        max_context: int | None = None,
        prefill_tokens: int = PREFILL_TOKENS,
        steps_per_sync: int | None = None,
        cuda_graphs: bool = False,
    ) -> None:
        if slots is not None and slots < 1:
            raise ValueError(f"slots is {slots}; it must be at least 1")
        if prefill_tokens < 1:
            raise ValueError(f"prefill_tokens is {prefill_tokens}; it must be at least 1")
        self._combination, models = combined(anchor=anchor, post=post, pre=pre, decoding=decoding)
        configs = [model.config for model in models]
        longest, self.rope_end = common_max_context(*configs), common_rope_end(*configs)
        if max_context is not None and not 2 <= max_context <= longest:
            raise ValueError(f"max_context is {max_context}; it must be in [2, {longest}] for these models")
        self.max_context = max_context or longest
        for model in models:
            check_decodable(model, max_context=self.max_context)
        self.decoding, self._models = decoding, models
        self.vocab_size = common_vocab_size(*configs)
        self.stop_token_ids = stop_token_ids(models[0], tokenizer)
        self.device = models[0].device
        if cuda_graphs and self.device.type != "cuda":
            raise ValueError(f"cuda_graphs is set, but the model lies on {self.device}")
        self.prefill_tokens, self.cuda_graphs = prefill_tokens, cuda_graphs
        self.steps_per_sync = steps_per_sync or (1 if self.device.type == "cpu" else 8)
        self.stats = SlotStats()
        self._stop_strings = StopStrings(decoding.stop_strings, tokenizer=tokenizer)
        self._allocate(slots or default_slots(models, decoding=decoding, max_context=self.max_context))
        self._rows: dict[int, Row] = {}

    def decode(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions in the order in which rows finish; a request that cannot be decoded comes back as an error."""
        # An earlier stream may have been abandoned midway, and the weights may have changed since.
        self._rows.clear()
        self._prefixes.clear()
        self._state.active_S.zero_()
        queue = Queue(iter(requests))
        while True:
            admitted, refused = self._take(queue)
            yield from refused
            if not self._rows and not admitted:
                return
            finished = self._round(admitted, queue)
            if finished is None:
                self._back_off(queue)
            else:
                yield from finished

    @property
    def decoded_tokens(self) -> int:
        """New tokens since the engine was built, of unfinished rows too; any thread may read it while rows advance."""
        return self.stats.useful_slot_steps

    def _round(self, admitted: Sequence[tuple[int, Request]], queue: Queue) -> list[Completion] | None:
        """Admit requests, advance all rows, and return what has ended; None when memory ran out on the way."""
        try:
            if admitted:
                self._admit(admitted)
            if queue.exhausted:
                self._compact()
            self._advance(queued=not queue.exhausted)
            return self._collect()
        except torch.OutOfMemoryError:
            if self.slots == 1 and self.prefill_tokens <= FEWEST_PREFILL_TOKENS:
                raise
            return None

    def _back_off(self, queue: Queue) -> None:
        """Go on with half the slots; a row that starts again draws the same numbers, so its text is the same."""
        queue.put_back(row.request for row in self._rows.values())
        self._rows.clear()
        self.stats.back_offs += 1
        self.prefill_tokens = max(self.prefill_tokens // 2, min(FEWEST_PREFILL_TOKENS, self.prefill_tokens))
        self._allocate(max(1, self.slots // 2))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _allocate(self, slots: int) -> None:
        """Caches (which take memory with their first prompts) and the state of so many rows."""
        self.slots, self.refill_at = slots, max(1, slots // 16)
        self._band_width = band_width(slots) if self.device.type == "cpu" else slots
        self._backbones = [Backbone(model, self._new_cache(model)) for model in self._models]
        self._prefixes = Prefixes(self._backbones, stats=self.stats, device=self.device)
        self._state = SlotState(
            slots=slots,
            models=len(self._models),
            vocab_size=self.vocab_size,
            decoding=self.decoding,
            stop_token_ids=self.stop_token_ids,
            device=self.device,
        )
        self._step = Step(
            backbones=self._backbones,
            combination=self._combination,
            state=self._state,
            decoding=self.decoding,
            vocab_size=self.vocab_size,
            exact=all(reads_own_columns(model) for model in self._models),
        )
        self._graphs = None
        if self.cuda_graphs:
            self._graphs = GraphedSteps(self._step, slots=slots, capture=CudaCapture())

    def _new_cache(self, model: PreTrainedModel) -> SlotCache:
        layers = model.config.get_text_config().num_hidden_layers
        return SlotCache(layers=layers, slots=self.slots, capacity=min(64, self.max_context), limit=self.max_context)

    def _take(self, queue: Queue) -> tuple[list[tuple[int, Request]], list[Completion]]:
        """Requests for the free slots, and the answers to those that cannot be decoded.

        A few requests at a time share one prefill pass, which costs fewer slot-steps than it saves.
        """
        admitted: list[Request] = []
        refused: list[Completion] = []
        room = self.slots - len(self._rows)
        if queue.exhausted or (self._rows and room < self.refill_at):
            return [], refused
        self._settle()
        while len(admitted) < room and (request := queue.take()) is not None:
            error = self._error(request)
            if error is None:
                admitted.append(request)
            else:
                refused.append(error_completion(request, error))
        admitted.sort(key=lambda request: -len(request.prompt_token_ids))
        free = [slot for slot in range(self.slots) if slot not in self._rows]
        return list(zip(free, admitted, strict=False)), refused

    @torch.inference_mode()
    def _settle(self) -> None:
        """Move rows so that those of like length lie in one band."""
        self._move(moves(self._cached(), slots=self.slots, width=self._band_width))

    def _cached(self) -> dict[int, int]:
        return {slot: row.cached for slot, row in self._rows.items()}

    def _error(self, request: Request) -> str | None:
        return request_error(
            request,
            decoding=self.decoding,
            vocab_size=self.vocab_size,
            max_context=self.max_context,
            pair=len(self._models) == 2,
        )

    @torch.inference_mode()
    def _admit(self, admitted: Sequence[tuple[int, Request]]) -> None:
        """Prefill the prompts that no slot holds yet, copy the others, and start the rows."""
        limits = [token_limit(r, decoding=self.decoding, max_context=self.max_context) for _, r in admitted]
        for (slot, request), limit in zip(admitted, limits, strict=True):
            self._rows[slot] = Row(request=request, limit=limit)
        longest = max(len(r.prompt_token_ids) + limit for (_, r), limit in zip(admitted, limits, strict=True))
        for backbone in self._backbones:
            backbone.cache.reserve(longest)
        wanted = {slot: request.prompt_token_ids[:-1] for slot, request in admitted}
        self._prefixes.fill(wanted, most_tokens=self.prefill_tokens)
        given = [self._combination.coefficient(request) for _, request in admitted]
        self._state.admit([slot for slot, _ in admitted], [r for _, r in admitted], limits, coefficients=given)

    @torch.inference_mode()
    def _compact(self) -> None:
        """Once nothing waits any more, gather the remaining rows in the lowest slots, so that steps become smaller."""
        count, highest = len(self._rows), max(self._rows)
        if 4 * count > 3 * (highest + 1):
            return
        free = [slot for slot in range(count) if slot not in self._rows]
        self._move(list(zip([slot for slot in sorted(self._rows) if slot >= count], free, strict=True)))

    def _move(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Move rows from slots to slots, all at once."""
        if not pairs:
            return
        length = max(self._rows[source].cached for source, _ in pairs)
        source_P, target_P = self._prefixes.move(pairs, length=length)
        self._state.copy_rows(source_P, target_P)
        for source, target in pairs:
            self._rows[target] = self._rows.pop(source)
        left = [source for source, _ in pairs if source not in self._rows]
        self._state.active_S[left] = False

    @torch.inference_mode()
    def _advance(self, *, queued: bool) -> None:
        """Run a few steps and learn how far every row has come."""
        steps = min(self.steps_per_sync, max(row.limit - row.generated for row in self._rows.values()))
        rows = max(self._rows) + 1
        capacity = self._backbones[0].cache.capacity
        read = bands(self._cached(), rows=rows, width=self._band_width)
        for _ in range(steps):
            if self._graphs is None:
                self._step(read)
            else:
                self._graphs(rows=rows, used=max(band.columns for band in read), capacity=capacity)
            read = tuple(Band(band.rows, min(band.columns + 1, capacity)) for band in read)
        generated = self._state.generated_S[:rows].tolist()
        useful = 0
        for slot, row in self._rows.items():
            useful += generated[slot] - row.generated
            row.generated = generated[slot]
        self.stats.count(steps=steps, rows=rows, slots=self.slots, useful=useful, queued=queued)

    def _collect(self) -> list[Completion]:
        """Completions of the rows that have ended, whose slots become free."""
        active = self._state.active_S.tolist()
        candidates = [slot for slot in self._rows if not active[slot] or self._stop_strings]
        if not candidates:
            return []
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
        return self._finish(finished, dict(zip(candidates, tokens, strict=True)))

    def _finish(self, finished: Sequence[tuple[int, int, bool]], tokens: dict[int, list[int]]) -> list[Completion]:
        """Completions of (slot, number of tokens, ended by a stop string)."""
        slots, counts = [slot for slot, _, _ in finished], [count for _, count, _ in finished]
        names = [f"logprob_{role}" for role in self._combination.roles]
        sums = self._state.logprob_sums(slots=slots, counts=counts)
        completions = [
            finished_completion(
                self._rows[slot].request,
                tokens=tokens[slot][:count],
                stop_token_ids=self.stop_token_ids,
                stopped_by_string=stopped_by_string,
                decoding=self.decoding,
                rope_end=self.rope_end,
                **dict(zip(names, values, strict=True)),
            )
            for (slot, count, stopped_by_string), values in zip(finished, sums, strict=True)
        ]
        for slot in slots:
            self._state.active_S[slot] = False
            del self._rows[slot]
        return completions
