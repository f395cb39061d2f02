"""Judges of pairs: who compares a response with the baseline's. A judge is a value; the stage `Compare` asks it.

AlpacaEval2()                          one game, the verdict read from log-probabilities: WR and LC
ArenaHardJudge(version="v0.1")         two games with swapped places, verdicts in the text: WR; SC by `ArenaHardTable`
ExactComparison(world=world)           the exact rewards of the synthetic world: WR and LC, no server
NoisyComparison(world=world, ...)      the same with errors and a taste for length: another judge of that world

What a judge is asked and how its answers are read stands here; `options` changes or, with None, drops parameters of the
request: `options=(("max_tokens", None), ("max_completion_tokens", 4096))` for models that want it so.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cong.data import Row
from cong.data.prompts import LocalFile
from cong.evaluation.alpaca_eval import GamedTable
from cong.evaluation.arena_hard import Version, share_of_a, verdict_of
from cong.evaluation.judging.ask import HttpJudge
from cong.evaluation.judging.cache import Body
from cong.evaluation.judging.faults import UnusableAnswer
from cong.evaluation.judging.pairs import Pair, Verdict
from cong.evaluation.judging.templates import ALPACA_EVAL_2, ARENA_HARD, Template
from cong.evaluation.outcome import alpaca_eval_outcome, arena_hard_outcome
from cong.graph.fingerprint import fields_of

Options = tuple[tuple[str, str | int | float | bool | None], ...]
TOP_LOGPROBS = 5
_ROUNDING = 0.01


@dataclass(frozen=True, kw_only=True)
class AlpacaEval2(HttpJudge):
    """AlpacaEval 2's judge: the chance of the tokens `m` (first output) and `M` (second) as the verdict.

    `tables` is the benchmark's `df_gamed.csv`, for LC on its own prompts.
    """

    GAMES: ClassVar[int] = 1

    model: str = "gpt-4-1106-preview"
    template: Template = ALPACA_EVAL_2
    temperature: float = 1.0
    tables: LocalFile | None = None
    options: Options = ()

    def __str__(self) -> str:
        return f"alpaca_eval_2,{self.model}"

    def check(self) -> None:
        super().check()
        if self.tables is not None:
            self.tables.read()

    def outcome(self, rows: list[Row]) -> dict[str, Any]:
        """Return WR and LC with standard errors; with `tables` LC is the benchmark's own, and rows are in its order."""
        tables = self.tables and GamedTable.read(self.tables.text(), source=self.tables.path)
        return alpaca_eval_outcome(rows, tables=tables)

    def requests(self, pair: Pair) -> list[Body]:
        """Return what to ask: one request, or none where both outputs are the same, which is a draw."""
        if pair.output == pair.baseline:
            return []
        sides = (pair.output, pair.baseline) if switched(pair.instruction) else (pair.baseline, pair.output)
        messages = self.template.messages(instruction=pair.instruction, first=sides[0], second=sides[1])
        logprobs = {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return [_body(self, messages, temperature=self.temperature, max_tokens=1, **logprobs)]

    def check_answer(self, response: Body) -> None:
        """Raise `UnusableAnswer` when a response has no log-probabilities, or numbers that are none."""
        logprobs = _top_logprobs(response)
        if logprobs is None:
            raise UnusableAnswer("the answer has no log-probabilities")
        # Servers round: a certain token may come out a little above 0.
        if not all(value <= _ROUNDING for value in logprobs.values()):
            raise UnusableAnswer("the answer has log-probabilities that are none")

    def verdict(self, pair: Pair, responses: Sequence[Body]) -> Verdict:
        """Read the verdict."""
        if not responses:
            return Verdict(preference=1.5, labels=("same output",))
        logprobs = _top_logprobs(responses[0])
        assert logprobs is not None
        found = preference(logprobs, is_switched=switched(pair.instruction))
        return Verdict(
            preference=None if math.isnan(found) else found, labels=(max(logprobs, key=logprobs.__getitem__),)
        )


@dataclass(frozen=True, kw_only=True)
class ArenaHardJudge(HttpJudge):
    """Arena-Hard's judge. In game 1 the baseline is assistant A, in game 2 the model is.

    Its answers are read as the benchmark of that version reads them (`cong.evaluation.arena_hard`). One thing is left
    out: a v0.1 judgment without a verdict is not continued by a second question.
    """

    GAMES: ClassVar[int] = 2

    version: Version
    model: str = "gpt-4-1106-preview"
    template: Template = ARENA_HARD
    temperature: float = 0.0
    max_tokens: int = 4096
    options: Options = ()

    def __post_init__(self) -> None:
        if self.version not in ("v0.1", "v2.0"):
            raise ValueError(f"version = {self.version!r} is neither 'v0.1' nor 'v2.0'")

    def __str__(self) -> str:
        return f"arena_hard_{self.version},{self.model}"

    def identity(self) -> Any:
        """Return class and fields; with v0.1 also how its verdicts are read, which once was v2.0's way."""
        known = {"class": type(self).__name__, **fields_of(self)}
        return known | {"parsing": "0489bf3"} if self.version == "v0.1" else known

    def figures(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        return {"WR (AH)": summary["wr"]}

    def outcome(self, rows: list[Row]) -> dict[str, Any]:
        """Return WR with its bootstrap interval; SC takes several models, see `ArenaHardTable`."""
        return arena_hard_outcome(rows, version=self.version)

    def requests(self, pair: Pair) -> list[Body]:
        """Return what to ask: both games."""
        sides = ((pair.baseline, pair.output), (pair.output, pair.baseline))
        games = (self.template.messages(instruction=pair.instruction, first=one, second=two) for one, two in sides)
        limits = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return [_body(self, messages, **limits) for messages in games]

    def check_answer(self, response: Body) -> None:
        """Raise `UnusableAnswer` when a response has no text."""
        if not isinstance(_text(response), str):
            raise UnusableAnswer("the answer has no text")

    def verdict(self, pair: Pair, responses: Sequence[Body]) -> Verdict:
        """Read the verdicts; the preference is the mean over the games that have one, `>>` counting as `>`."""
        labels = tuple(verdict_of(_text(response), version=self.version) for response in responses)
        found = [share_of_a(label) for label in labels]
        # The model is assistant B in the first game.
        shares = [share if game else 1 - share for game, share in enumerate(found) if share is not None]
        return Verdict(preference=1 + sum(shares) / len(shares) if shares else None, labels=labels)


def switched(instruction: str) -> bool:
    """Tell whether AlpacaEval shows the model's output first: a draw that depends on the instruction alone."""
    return random.Random(f"is_switched_outputs{instruction}0").choices([False, True], k=1)[0]


def preference(logprobs: dict[str, float], *, is_switched: bool) -> float:
    """Return the preference from the log-probabilities of `m` and `M`: a missing token has chance 0, both give NaN."""
    chances = [math.exp(logprobs[token]) if token in logprobs else 0.0 for token in ("m", "M")]
    if sum(chances) == 0:
        return float("nan")
    found = 2 - chances[0] / sum(chances)
    return 3 - found if is_switched else found


def _body(judge: AlpacaEval2 | ArenaHardJudge, messages: list[dict[str, str]], **parameters: Any) -> Body:
    merged = {"model": judge.model, "messages": messages, **parameters, **dict(judge.options)}
    return {name: value for name, value in merged.items() if value is not None}


def _top_logprobs(response: Body) -> dict[str, float] | None:
    try:
        found = response["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return {str(entry["token"]): float(entry["logprob"]) for entry in found} or None
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _text(response: Body) -> Any:
    try:
        return response["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
