"""A judge of pairs: who compares a model's response with a baseline's. It is a value; the stage `Compare` asks it.

A judge that needs no server subclasses `LocalJudge` and has `verdict(pair)`; one behind an API is an `HttpJudge`
(`cong.evaluation.judging.ask`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cong.data import Row
from cong.evaluation.outcome import alpaca_eval_outcome
from cong.graph.stage import Context


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What is compared. `finished` tells, for each side, whether its end token was written."""

    instruction: str
    output: str
    baseline: str
    finished: tuple[bool, bool] = (True, True)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a pair was judged: 1 where the baseline wins, 2 where the model does; None without a verdict."""

    preference: float | None
    labels: tuple[str | None, ...] = ()
    """What the judge said, game by game."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A pair after judging: its verdict, or the error; tokens and US dollars of the answers behind it."""

    verdict: Verdict | None
    error: str | None = None
    over_budget: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0
    cached: bool = False
    """Whether all answers were there before."""


class PairJudge(ABC):
    """Who compares a response with the baseline's; subclasses are frozen dataclasses."""

    GAMES: ClassVar[int] = 0
    """Requests to a server per pair."""

    def check(self) -> None:  # noqa: B027 - most judges need nothing else
        """Look at what lies outside of the graph before anything runs; raise `UserError`."""

    @abstractmethod
    def judge(self, pairs: Mapping[str, Pair], ctx: Context) -> dict[str, Judged]:
        """Return every pair's result by its name."""

    def figures(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a table shows of a comparison's summary, by the names of the paper's columns."""
        return {"LC": summary["lc"], "WR": summary["wr"]}

    def outcome(self, rows: list[Row]) -> dict[str, Any]:
        """Return the summary of a comparison in per cent, WR and LC; a figure that the rows do not allow is None."""
        return alpaca_eval_outcome(rows)


class LocalJudge(PairJudge):
    """A judge that needs no server."""

    @abstractmethod
    def verdict(self, pair: Pair) -> Verdict:
        """Return the verdict; raise `ValueError` or `ArithmeticError` for a pair that cannot be compared."""

    def judge(self, pairs: Mapping[str, Pair], ctx: Context) -> dict[str, Judged]:
        return {name: self._judged(pair) for name, pair in pairs.items()}

    def _judged(self, pair: Pair) -> Judged:
        try:
            return Judged(verdict=self.verdict(pair))
        except (ValueError, ArithmeticError) as error:
            return Judged(verdict=None, error=f"the judge cannot compare this pair: {error}")
