"""`Compare`: the responses of a stage against those of a baseline, prompt by prompt, by a judge of pairs.

Compare(responses=ours, baseline=theirs, judge=AlpacaEval2())                    # over HTTP, see `JudgeEndpoint`
Compare(responses=ours, baseline=theirs, judge=ExactComparison(world=world))     # the synthetic world

One row per prompt in `comparisons.parquet`: prompt_id, prompt, response, baseline_response, preference (1 the baseline,
2 the model), labels (what the judge said, game by game), input_tokens, output_tokens, cost (US dollars), cached, error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cong.data import RESPONSES, Row, by_prompt, check_failures, read_rows, write_rows
from cong.data.jsonlines import lone_surrogate
from cong.data.prompts import LocalFile
from cong.errors import UserError
from cong.evaluation.evaluation import Evaluation
from cong.evaluation.judging.pairs import Judged, Pair, PairJudge
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Usage, Work

COMPARISONS = "comparisons.parquet"
_GIVEN = ("prompt_id", "prompt", "response")
_COLUMNS = ("prompt_id", "prompt", "response", "finish_reason", "error")


@dataclass(frozen=True, kw_only=True)
class ResponseFile(Stage):
    """Responses that somebody else made: a JSON Lines file with `prompt_id`, `prompt` and `response` in each line."""

    file: LocalFile

    def check(self) -> None:
        self._rows()

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def run(self, ctx: Context) -> None:
        rows = self._rows()
        write_rows(ctx.out / RESPONSES, rows)
        ctx.summary(rows=len(rows))

    def _rows(self) -> list[Row]:
        rows = [self._row(number, row) for number, row in self.file.rows(names=_GIVEN)]
        if len({row["prompt_id"] for row in rows}) < len(rows):
            raise UserError(f"{self.file.path}: a prompt_id comes twice")
        return rows

    def _row(self, number: int, row: Row) -> Row:
        texts = {name: row[name] for name in _GIVEN}
        if not all(isinstance(text, str) for text in texts.values()):
            raise UserError(f"{self.file.path}: line {number} holds something else than texts")
        if half := lone_surrogate(texts):
            raise UserError(f"{self.file.path}: line {number} holds half of a character, {half}")
        return {**texts, "finish_reason": "stop", "error": None}


@dataclass(frozen=True, kw_only=True)
class Compare(Evaluation):
    """Verdicts on one response per prompt against the baseline's response to the same prompt.

    The summary holds, in per cent, `wr` with its error or interval, `lc` where the judge is not Arena-Hard's, and
    `failed_share`. The stage fails above `max_error_share` of prompts without a judgment.
    """

    MEASURE = "preference"

    responses: Stage
    baseline: Stage
    judge: PairJudge
    max_error_share: float = 0.01

    def label(self) -> str:
        return str(self.judge)

    def check(self) -> None:
        self.judge.check()

    def work(self, resources: Resources) -> Work:
        return Work(requests=self.judge.GAMES * self.responses.row_count())

    def usage(self, results: Mapping[str, Any]) -> Usage:
        tokens = results.get("input_tokens", 0) + results.get("output_tokens", 0)
        return Usage(judge_tokens=tokens, dollars=results.get("cost"))

    def judged(self, directory: Path) -> list[Row]:
        rows = read_rows(directory / COMPARISONS)
        return [row | {"reward": row["preference"] - 1} for row in rows if row["preference"] is not None]

    @property
    def evaluated_model(self) -> Any:
        return self.responses.evaluated_model

    def run(self, ctx: Context) -> None:
        rows = self._pair_rows(ctx)
        pairs = {row["prompt_id"]: _pair(row) for row in rows if row["error"] is None}
        judged = self.judge.judge(pairs, ctx)
        finished = [_finished(row, judged.get(row["prompt_id"])) for row in rows]
        write_rows(ctx.out / COMPARISONS, finished)
        over_budget = [one.error for one in judged.values() if one.over_budget]
        if over_budget:
            # The budget is no part of the identity, so what it cut short is no result of this stage.
            raise UserError(
                f"{len(over_budget)} of {len(rows)} prompts are not judged: {over_budget[0]}; raise judging.budget "
                "and run again, what is judged is kept"
            )
        check_failures(finished, self.max_error_share, name="prompt_id")
        ctx.summary(**_costs(finished), **self.judge.outcome(finished))

    def _pair_rows(self, ctx: Context) -> list[Row]:
        """Return a row per response, in their order, joined with the baseline's by `prompt_id`."""
        ours = by_prompt(_responses(ctx.path(self.responses)))
        theirs = by_prompt(_responses(ctx.path(self.baseline)))
        return [_joined(row, theirs.get(prompt_id)) for prompt_id, row in ours.items()]


def _responses(directory: Path) -> list[Row]:
    return read_rows(directory / RESPONSES, columns=_COLUMNS)


def _joined(row: Row, baseline: Row | None) -> Row:
    if row["error"] is not None:
        error = f"there is no response: {row['error']}"
    elif baseline is None:
        error = "the baseline has no response to this prompt"
    else:
        error = baseline["error"] and f"the baseline has no response: {baseline['error']}"
    return {
        "prompt_id": row["prompt_id"],
        "prompt": row["prompt"],
        "response": row["response"],
        "baseline_response": baseline and baseline["response"],
        "finished": (row["finish_reason"] == "stop", bool(baseline) and baseline["finish_reason"] == "stop"),
        "error": error,
    }


def _pair(row: Row) -> Pair:
    return Pair(
        instruction=row["prompt"],
        output=row["response"],
        baseline=row["baseline_response"],
        finished=row["finished"],
    )


def _finished(row: Row, judged: Judged | None) -> Row:
    verdict = judged and judged.verdict
    kept = ("prompt_id", "prompt", "response", "baseline_response")
    return {
        **{name: row[name] for name in kept},
        "preference": verdict.preference if verdict else None,
        "labels": list(verdict.labels) if verdict else [],
        "input_tokens": judged.input_tokens if judged else 0,
        "output_tokens": judged.output_tokens if judged else 0,
        "cost": judged.cost if judged else 0.0,
        "cached": judged.cached if judged else False,
        "error": judged.error if judged else row["error"],
    }


def _costs(rows: list[Row]) -> dict[str, Any]:
    costs = [row["cost"] for row in rows]
    failed = sum(row["error"] is not None for row in rows)
    return {
        "prompts": len(rows),
        "failed_rows": failed,
        "failed_share": failed / max(len(rows), 1),
        "undecided_rows": sum(row["error"] is None and row["preference"] is None for row in rows),
        "input_tokens": sum(row["input_tokens"] for row in rows),
        "output_tokens": sum(row["output_tokens"] for row in rows),
        "cost": None if None in costs else sum(costs),
    }
