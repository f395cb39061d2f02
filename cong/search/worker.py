"""The worker that searches: it holds the strong model in a decoding engine, and the weak pair in a scorer.

Many rows are searched at a time, and in every round all of them go on by one chunk: their continuations are one stream
of requests for the engine, then one batch for the scorer. A row that is finished makes room for the next, so the rows
of a round need not be equally far.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.data import Row
from cong.data.formatting import STOP_TOKEN, TOKENS, prompt_tokens, response_text
from cong.errors import UserError
from cong.generation.backends import make_engine
from cong.generation.decode import response_row
from cong.graph.libraries import import_libraries
from cong.graph.resources import Resources
from cong.scoring.scorers import LogprobScorer, Tokens
from cong.search.beams import Beam, best, distinct
from cong.search.memory import SCORED_TOKENS, engine_resources

if TYPE_CHECKING:
    from cong.decoding import Completion, Request

SEEDS = "seeds"
"""Column of rows to search: a seed for each of their `beams` times `expansions` streams of random numbers."""
PROPOSED = "proposed_tokens"
"""Column of responses: how many tokens the strong model has drawn for them, those of dropped beams too."""
IN_FLIGHT = 4
"""Continuations of a round per slot of the engine: those that stop early leave their slots to others."""


@dataclass(frozen=True, kw_only=True)
class SearchJob:
    """All that a worker must know. `scoring_bytes` is what a pass of the weak pair takes beside its weights."""

    model: Path
    post: Path
    pre: Path
    beams: int
    expansions: int
    chunk: int
    settings: dict[str, Any]
    resources: Resources
    scoring_bytes: float


@dataclass(kw_only=True)
class Searched:
    """A row whose response is being searched; `most` is how many tokens that may have."""

    row: Row
    prompt: tuple[int, ...]
    weak_prompt: tuple[int, ...]
    most: int
    beams: list[Beam]
    proposed: int = 0
    errors: list[str] = field(default_factory=list[str])

    @property
    def finished(self) -> bool:
        """Whether all beams have ended, or none is left."""
        return all(beam.ended for beam in self.beams)


class Searcher:
    """Holds three models on one device and searches rows."""

    def __init__(self, job: SearchJob) -> None:
        import_libraries("cong.decoding")
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.job = job
        try:
            # Before the engine, which takes what memory is left.
            self.scorer = LogprobScorer((job.post, job.pre), job.resources)
        except ValueError as error:
            raise UserError(f"the weak pair {job.post} and {job.pre} cannot score: {error}") from error
        resources = engine_resources(job.model, job.settings, job.resources, scoring_bytes=job.scoring_bytes)
        self.tokenizer, self.engine = make_engine(post=job.model, pre=None, settings=job.settings, resources=resources)
        slots = resources.decoding.rows_at_a_time
        self._rows_at_a_time = max(1, IN_FLIGHT * slots // (job.beams * job.expansions))

    @property
    def decoded_tokens(self) -> int:
        """New tokens since the models were loaded, those of dropped beams too."""
        return self.engine.decoded_tokens

    def process(self, rows: list[Row]) -> Iterator[Row]:
        """Yield every row with its response, in the order in which they finish."""
        waiting, going = deque(rows), list[Searched]()
        while waiting or going:
            while waiting and len(going) < self._rows_at_a_time:
                begun = self._begin(waiting.popleft())
                if isinstance(begun, Searched):
                    going.append(begun)
                else:
                    yield begun
            self._round(going)
            yield from (self._response(searched) for searched in going if searched.finished)
            going = [searched for searched in going if not searched.finished]

    def _begin(self, row: Row) -> Searched | Row:
        """Return a row as a search that begins, or with why none can."""
        try:
            prompt, weak_prompt = (prompt_tokens(one, row) for one in (self.tokenizer, self.scorer.tokenizer))
        except Exception as error:
            # Chat templates raise what they like at messages that they do not understand: the row keeps it.
            return self._refused(row, f"the chat cannot be formatted: {type(error).__name__}: {error}")
        most = min(self.engine.decoding.max_new_tokens, self.engine.max_context - len(prompt))
        return Searched(row=row, prompt=prompt, weak_prompt=weak_prompt, most=most, beams=[Beam()] * self.job.beams)

    def _round(self, going: Sequence[Searched]) -> None:
        """Let the responses of all rows go on by one chunk."""
        requests = [request for number, searched in enumerate(going) for request in self._requests(searched, number)]
        decoded = {completion.row_id: completion for completion in self.engine.decode(requests)}
        proposals = [self._proposals(searched, number, decoded) for number, searched in enumerate(going)]
        # What the weak pair reads as the same has the very same reward, whatever is scored beside it.
        read = list(dict.fromkeys(tokens for found in proposals for _, tokens in found))
        most = SCORED_TOKENS[self.job.resources.hardware.device]
        rewards = dict(zip(read, self.scorer.rewards(read, most_tokens=most), strict=True))
        for searched, found in zip(going, proposals, strict=True):
            self._keep_best(searched, [beam.rewarded(rewards[tokens]) for beam, tokens in found])

    def _requests(self, searched: Searched, number: int) -> "Iterator[Request]":
        """Yield the requests for the next chunks; each place has a stream of random numbers from beginning to end."""
        from cong.decoding import Request

        for place, beam in self._places(searched):
            done = len(beam.tokens)
            yield Request(
                row_id=f"{number}/{place}",
                prompt_token_ids=(*searched.prompt, *beam.tokens),
                seed=searched.row[SEEDS][place],
                drawn=done,
                max_new_tokens=min(self.job.chunk, self.engine.decoding.max_new_tokens - done),
            )

    def _places(self, searched: Searched) -> Iterator[tuple[int, Beam]]:
        """Yield the places of a row's continuations, and the beams behind which they come."""
        for place in range(len(searched.beams) * self.job.expansions):
            beam = searched.beams[place // self.job.expansions]
            if beam.ended is None:
                yield place, beam

    def _proposals(
        self, searched: Searched, number: int, decoded: "dict[str, Completion]"
    ) -> list[tuple[Beam, Tokens]]:
        """Return the continuations of a row that can be scored, and what the weak pair reads."""
        longer: list[Beam] = []
        for place, beam in self._places(searched):
            completion = decoded[f"{number}/{place}"]
            searched.proposed += completion.num_tokens
            if completion.error is None:
                longer.append(beam.extended(completion, most=searched.most))
            else:
                searched.errors.append(completion.error)
        found = [(beam, self._weak_tokens(searched, beam)) for beam in distinct(longer)]
        searched.errors += [tokens for _, tokens in found if isinstance(tokens, str)]
        return [(beam, tokens) for beam, tokens in found if not isinstance(tokens, str)]

    def _weak_tokens(self, searched: Searched, beam: Beam) -> Tokens | str:
        """Return prompt and response in the weak pair's tokens, or why it cannot score them."""
        response = {
            "response": response_text(self.tokenizer, beam.text_tokens),
            TOKENS: list(beam.text_tokens),
            STOP_TOKEN: beam.stop_token_id,
            "finish_reason": beam.ended,
            "error": None,
        }
        return self.scorer.tokens(response, prompt=searched.weak_prompt)

    def _keep_best(self, searched: Searched, longer: list[Beam]) -> None:
        """Keep the best of the continuations and of the beams that had ended, which compete as they are."""
        searched.errors += [f"the reward is {beam.reward}" for beam in longer if not math.isfinite(beam.reward)]
        ended = [beam for beam in searched.beams if beam.ended]
        good = [beam for beam in longer if math.isfinite(beam.reward)]
        searched.beams = best([*ended, *good], width=self.job.beams)

    def _response(self, searched: Searched) -> Row:
        """Return the best response of a finished search, or why there is none."""
        from cong.decoding import Request
        from cong.decoding.types import finished_completion

        if not searched.beams:
            return self._refused(searched.row, searched.errors[0], proposed=searched.proposed)
        winner = searched.beams[0]
        completion = finished_completion(
            Request(row_id=searched.row["row_id"], prompt_token_ids=searched.prompt),
            tokens=winner.tokens,
            stop_token_ids=self.engine.stop_token_ids,
            stopped_by_string=False,
            logprob_post=winner.logprob,
            logprob_pre=None,
            decoding=self.engine.decoding,
            rope_end=self.engine.rope_end,
        )
        reward = winner.reward if completion.error is None else None
        return self._row(searched.row, completion, reward=reward, proposed=searched.proposed)

    def _refused(self, row: Row, error: str, *, proposed: int = 0) -> Row:
        from cong.decoding import Request
        from cong.decoding.types import error_completion

        completion = error_completion(Request(row_id=row["row_id"], prompt_token_ids=()), error)
        return self._row(row, completion, reward=None, proposed=proposed)

    def _row(self, row: Row, completion: "Completion", *, reward: float | None, proposed: int) -> Row:
        columns = response_row(row, completion, tokenizer=self.tokenizer)
        return columns | {"implicit_reward": reward, PROPOSED: proposed}
