"""`Search`: weak-to-strong search (Zhou et al., 2024, arXiv:2405.19262), written to `responses.parquet`.

Columns are those of `Generate`; `logprob_post` is log pi of the strong model, `implicit_reward` the weak pair's
log pi_r - log pi_ref of the response, by which it was chosen, and `proposed_tokens` how many tokens were drawn for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cong.data import PROMPTS, Row, read_rows, row_seed
from cong.data.map_rows import map_rows
from cong.generation import Sampling
from cong.generation.backends import backend_note
from cong.generation.decode import write_responses
from cong.generation.needs import is_adapter, without_adapter
from cong.generation.stages import decoding_settings, request_rows
from cong.graph.demand import Demand
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import Usage, Work
from cong.models import Model, check_chat, check_model, check_pair, largest, model_dir, pair_dirs
from cong.models.work import response_bytes
from cong.search.memory import scoring_need, search_need, search_resources
from cong.search.work import search_seconds
from cong.search.worker import PROPOSED, SEEDS, Searcher, SearchJob


@dataclass(frozen=True, kw_only=True)
class Search(Stage):
    """One response of a frozen strong model to every prompt, steered by a weak pair chunk by chunk.

    Of each of `beams` partial responses (all empty at first) the strong model draws `expansions` continuations of
    `chunk` tokens. Those `beams` with the highest log pi_r - log pi_ref of the whole partial response are kept, until
    all kept ones have ended: with a stop token, at `max_new_tokens`, or where the strong model's positions end. The
    best is the response. Candidates are a set: a beam that has ended stands in it once, as it is, and equal
    continuations count once (the published code keeps copies of both, so that one ended beam can take all places).

    The weak pair reads the strong model's tokens where its tokenizer has the same ones, otherwise their text; each
    side formats prompts by its own chat template. A `chunk` of None is the whole response: then one beam is best of n
    with n = `expansions`, and with one expansion too it is plain sampling. Every place of a continuation has a stream
    of random numbers of its own, that of the sample of this number in `Generate`, so no text depends on the chunk when
    there is nothing to choose, nor ever on batch size, actors or the order of prompts.

    Every round prefills prompt and partial responses again and scores them from their beginning; with n tokens per
    response this costs of the order of n^2 / `chunk`.
    """

    model: Model
    post: Model
    pre: Model
    prompts: Stage
    beams: int
    expansions: int
    max_new_tokens: int
    chunk: int | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.7, top_k=50))
    seed: int = 0
    max_error_share: float = 0.01

    def __post_init__(self) -> None:
        for name in ("beams", "expansions", "max_new_tokens", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value} is below 1")
        if self.sampling.temperature == 0 and self.beams * self.expansions > 1:
            raise ValueError("temperature = 0 makes all continuations equal: there is nothing to search among")

    def label(self) -> str:
        return f"W={self.beams},K={self.expansions},L={self.chunk or 'all'}"

    def check(self) -> None:
        check_model(self.model)
        check_chat(self.model)
        check_model(self.post, adapter=True)
        check_model(self.pre)
        check_pair(self.post, self.pre)
        check_chat(self.pre if is_adapter(self.post) else self.post)

    def execution(self, resources: Resources) -> Resources:
        pair = (self.post, self.pre)
        given = super().execution(resources)
        return search_resources(self.model, pair, new_tokens=self.max_new_tokens, resources=given)

    def demand(self, resources: Resources) -> Demand:
        return self.execution(resources).generation_demand()

    def parameters(self) -> int | None:
        return largest(self.model, *without_adapter((self.post, self.pre)))

    def memory(self, resources: Resources) -> Need | None:
        execution = self.execution(resources)
        return search_need(self.model, (self.post, self.pre), new_tokens=self.max_new_tokens, resources=execution)

    def work(self, resources: Resources) -> Work:
        seconds = search_seconds(
            self.model,
            (self.post, self.pre),
            rows=self.row_count(),
            beams=self.beams,
            expansions=self.expansions,
            chunk=self.chunk,
            resources=self.execution(resources),
        )
        return Work(gpu_seconds=seconds, disk_bytes=response_bytes(self.row_count()))

    def usage(self, results: Mapping[str, Any]) -> Usage:
        kept, drawn = results.get("tokens", 0), results.get(PROPOSED, 0)
        rate = results.get("tokens_per_second")
        # What is measured is the rate of the kept tokens.
        return Usage(tokens=drawn, tokens_per_second=rate * drawn / kept if rate and kept else rate)

    def row_count(self) -> int:
        return self.prompts.row_count()

    @property
    def new_tokens(self) -> int:
        return self.max_new_tokens

    @property
    def evaluated_model(self) -> Any:
        return self.model

    def run(self, ctx: Context) -> None:
        rows = self.rows(read_rows(ctx.path(self.prompts) / PROMPTS))
        found = map_rows(ctx, partial(Searcher, self.job(ctx)), rows, max_error_share=self.max_error_share)
        ctx.summary(backend=backend_note(ctx.resources), **{PROPOSED: sum(row[PROPOSED] for row in found)})
        write_responses(ctx, found)

    def rows(self, prompts: list[Row]) -> list[Row]:
        """Return one row to search per prompt, with an id and the seeds of its places."""
        places = range(self.beams * self.expansions)
        rows = request_rows(prompts, samples=1, seed=self.seed)
        seeds = (
            [row_seed(seed=self.seed, prompt_id=row["prompt_id"], sample=place) for place in places] for row in rows
        )
        return [row | {SEEDS: own} for row, own in zip(rows, seeds, strict=True)]

    def job(self, ctx: Context) -> SearchJob:
        """Return what a worker is told."""
        post, pre = pair_dirs(ctx, self.post, self.pre, shared=True)
        scoring = scoring_need((self.post, self.pre), new_tokens=self.max_new_tokens, resources=ctx.resources)
        return SearchJob(
            model=model_dir(ctx, self.model),
            post=post,
            pre=pre,
            beams=self.beams,
            expansions=self.expansions,
            chunk=self.chunk or self.max_new_tokens,
            settings=decoding_settings(self.sampling, max_new_tokens=self.max_new_tokens),
            resources=ctx.resources,
            scoring_bytes=0.0 if scoring is None else scoring.working,
        )
