"""Which responses a student learns from: the best share of one source, or by prompt one of two sources.

    SFT(model=strong, data=TopShare(scored=trust, share=0.5), ...)            # the most trusted labels
    SFT(model=strong, data=Mixture(scored=knows, otherwise=labels), ...)      # its own answers where it knows

Both write `responses.parquet` as `Generate` does, so whatever reads responses reads them.
"""

from dataclasses import dataclass, field
from typing import Any, cast

from cong.data import RESPONSES, SCORES, Row, by_prompt, copy_rows, read_rows, row_seed, write_rows
from cong.data.finite import check_finite
from cong.errors import NothingLeft
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import Work
from cong.models.work import response_bytes
from cong.probing.probe import Probe
from cong.probing.smoothing import Smoothed
from cong.scoring import Reward, Score

SOURCE = "source"
"""Column of a mixture: which of the two a response comes from."""
SCORED, OTHERWISE = "scored", "otherwise"
Scored = Score | Probe | Smoothed


@dataclass(frozen=True, kw_only=True)
class Chance(Reward):
    """A number drawn for every response, evenly from [0, 1): a filter by it is the random one of equal size."""

    seed: int = 0

    def of(self, row: Row) -> float:
        return row_seed(seed=self.seed, prompt_id=row["prompt_id"], sample=row["sample"]) / 2**63


@dataclass(frozen=True, kw_only=True)
class TopShare(Stage):
    """The responses with the highest scores, a share of those that have one; of equal ones the first by row_id."""

    scored: Scored
    share: float
    responses: Stage = field(init=False)
    """Derived from `scored`; a field, so that the graph sees it as an input."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share = {self.share} is not in (0, 1]")
        object.__setattr__(self, "responses", self.scored.responses)

    def label(self) -> str:
        return f"share={self.share:g},{self.scored.label()}"

    def work(self, resources: Resources) -> Work:
        return Work(disk_bytes=response_bytes(self.row_count()))

    def row_count(self) -> int:
        return round(self.share * self.scored.row_count())

    @property
    def new_tokens(self) -> int | None:
        return self.scored.responses.new_tokens

    @property
    def evaluated_model(self) -> Any:
        return self.scored.responses.evaluated_model

    def run(self, ctx: Context) -> None:
        rows = known_scores(ctx, self.scored)
        kept = top_rows(rows, share=self.share)
        if not kept:
            raise NothingLeft(f"{self.scored.title} holds no score, or too few for a share of {self.share:g}")
        copy_rows(ctx.path(self.scored.responses) / RESPONSES, ctx.out / RESPONSES, row_ids=kept)
        ctx.summary(rows=len(kept), dropped=len(rows) - len(kept))


def top_rows(rows: list[Row], *, share: float) -> list[str]:
    """Return the ids of the best rows, in the order in which the rows come."""
    best = sorted(rows, key=lambda row: (-row["reward"], row["row_id"]))[: round(share * len(rows))]
    chosen = {row["row_id"] for row in best}
    return [row["row_id"] for row in rows if row["row_id"] in chosen]


def known_scores(ctx: Context, stage: Stage) -> list[Row]:
    """Return row_id, prompt_id and reward of the responses that have one."""
    rows = read_rows(ctx.path(stage) / SCORES, columns=("row_id", "prompt_id", "reward"))
    check_finite(rows, columns=("reward",), source=stage.title)
    return [row for row in rows if row["reward"] is not None]


@dataclass(frozen=True, kw_only=True)
class Mixture(Stage):
    """Of every prompt the scored response where its score is above the threshold, and else that of `otherwise`.

    Both have one response per prompt. The column `source` says which of the two it is. A prompt that only one source
    has, or whose response in `otherwise` failed, is left out unless the other is chosen.
    """

    scored: Scored
    otherwise: Stage
    threshold: float = 0.5
    responses: Stage = field(init=False)
    """Derived from `scored`; a field, so that the graph sees it as an input."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "responses", self.scored.responses)

    def label(self) -> str:
        return f"above={self.threshold:g},{self.scored.label()}"

    def work(self, resources: Resources) -> Work:
        return Work(disk_bytes=response_bytes(self.row_count()))

    def row_count(self) -> int:
        return self.otherwise.row_count()

    @property
    def new_tokens(self) -> int | None:
        counts = (self.scored.responses.new_tokens, self.otherwise.new_tokens)
        return None if None in counts else max(cast(tuple[int, int], counts))

    def run(self, ctx: Context) -> None:
        above = {row["row_id"] for row in known_scores(ctx, self.scored) if row["reward"] > self.threshold}
        first, second = (by_prompt(read_rows(ctx.path(one) / RESPONSES)) for one in self._sources)
        known = {key: row | {SOURCE: SCORED} for key, row in first.items() if row["row_id"] in above}
        rest = {key: row | {SOURCE: OTHERWISE} for key, row in second.items() if row["error"] is None}
        order = dict.fromkeys((*second, *known))
        mixed = [(rest | known)[prompt_id] for prompt_id in order if prompt_id in known or prompt_id in rest]
        if not mixed:
            raise NothingLeft(f"neither {self.scored.title} nor {self.otherwise.title} holds a response")
        write_rows(ctx.out / RESPONSES, mixed)
        ctx.summary(rows=len(mixed), **{SCORED: len(known), OTHERWISE: len(mixed) - len(known)})

    @property
    def _sources(self) -> tuple[Stage, Stage]:
        return self.scored.responses, self.otherwise
