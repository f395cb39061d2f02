"""Contests: benchmarks of pairs, each with its prompts, the baseline that is played against, and its judge.

    for contest in scale.contests(seed):
        methods.compete(t, methods.cong(t, alpha=0.4, beta=0.5), contest)

AlpacaEval 2 and Arena-Hard v0.1 as the paper has them come from files of their repositories at a pinned commit of each;
with `CONG_MIRROR=DIR` set, `DIR/OWNER/NAME/PATH` is read instead. Arena-Hard's files are read in both of their forms:
that of v0.1's own time, which is pinned, and that since v2.0. The synthetic world has a contest of its own.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cong.data import PROMPTS, RESPONSES, Row, check_prompts, write_rows
from cong.data.jsonlines import numbered_lines
from cong.data.prompts import LocalFile
from cong.data.sizes import published_rows
from cong.errors import UserError
from cong.evaluation.judging import AlpacaEval2, ArenaHardJudge, PairJudge
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work
from cong.models.mirror import mirror

_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One benchmark of pairs. Without a baseline the strong model plays against itself as it was."""

    name: str
    prompts: Stage
    judge: PairJudge
    baseline: Stage | None = None


@dataclass(frozen=True, kw_only=True)
class RepositoryFile:
    """A file of a public GitHub repository at a commit."""

    repo: str
    commit: str
    path: str

    def read(self) -> str:
        """Return the text; raise `UserError` when it is not available."""
        directory = mirror(self.repo, self.commit)
        if directory is not None:
            return LocalFile(path=str(directory / self.path)).text()
        import urllib.error
        import urllib.request

        address = f"https://raw.githubusercontent.com/{self.repo}/{self.commit}/{self.path}"
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, TimeoutError) as error:
            raise UserError(
                f"{address} is not available ({error}): set CONG_MIRROR=DIR with a copy in DIR/{self.repo}/{self.path}"
            ) from error


@dataclass(frozen=True, kw_only=True)
class BaselineAnswers(Stage):
    """A benchmark's prompts with the baseline's answers: both `prompts.parquet` and `responses.parquet`."""

    form: Literal["alpaca_eval", "arena_hard"]
    answers: RepositoryFile
    questions: RepositoryFile | None = None

    def label(self) -> str:
        return self.form

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def row_count(self) -> int:
        return published_rows(self.form)

    def run(self, ctx: Context) -> None:
        rows = list(self._rows())
        prompts = [{name: row[name] for name in ("prompt_id", "prompt")} for row in rows]
        check_prompts(prompts, source=self.title)
        write_rows(ctx.out / PROMPTS, prompts)
        write_rows(ctx.out / RESPONSES, rows)
        ctx.summary(prompts=len(rows))

    def _rows(self) -> Iterator[Row]:
        if self.questions is None:
            # The benchmark joins its rows by position, and so does its table of difficulties.
            for number, entry in enumerate(json.loads(self.answers.read())):
                yield _row(f"{self.form}-{number:04d}", entry["instruction"], entry["output"])
            return
        given = {_id(entry): _answer(entry) for entry in _lines(self.answers)}
        for question in _lines(self.questions):
            name = _id(question)
            if name not in given:
                raise UserError(f"{self.answers.path} has no answer to question {name} of {self.questions.path}")
            yield _row(name, _question(question), given[name])


def _row(name: str, prompt: str, response: str) -> Row:
    return {"prompt_id": name, "prompt": prompt, "response": response, "finish_reason": "stop", "error": None}


def _lines(file: RepositoryFile) -> list[dict]:
    return [json.loads(line) for _, line in numbered_lines(file.read().encode())]


def _id(entry: dict) -> str:
    return entry["uid"] if "uid" in entry else entry["question_id"]


def _question(entry: dict) -> str:
    return entry["prompt"] if "prompt" in entry else entry["turns"][0]["content"]


def _answer(entry: dict) -> str:
    if "messages" in entry:
        content = entry["messages"][-1]["content"]
        return content["answer"] if isinstance(content, dict) else content
    return entry["choices"][0]["turns"][0]["content"]


ALPACA_EVAL = "tatsu-lab/alpaca_eval"
ARENA_HARD = "lmarena/arena-hard-auto"
ALPACA_EVAL_ANSWERS = BaselineAnswers(
    form="alpaca_eval",
    answers=RepositoryFile(
        repo=ALPACA_EVAL,
        commit="34e01fac2c393593366f2f62abd88507e00d6399",
        path="results/gpt4_1106_preview/model_outputs.json",
    ),
)
_ARENA_HARD_COMMIT = "6c82720015d5da7b8795b809b91f63ef74abbf6a"
ARENA_HARD_ANSWERS = BaselineAnswers(
    form="arena_hard",
    questions=RepositoryFile(repo=ARENA_HARD, commit=_ARENA_HARD_COMMIT, path="data/arena-hard-v0.1/question.jsonl"),
    answers=RepositoryFile(
        repo=ARENA_HARD, commit=_ARENA_HARD_COMMIT, path="data/arena-hard-v0.1/model_answer/gpt-4-0314.jsonl"
    ),
)


def published_contests(model: str = "gpt-4-1106-preview") -> tuple[Contest, ...]:
    """Return the paper's two benchmarks, judged by a model: one game with log-probabilities, and two games."""
    alpaca, arena = ALPACA_EVAL_ANSWERS, ARENA_HARD_ANSWERS
    return (
        Contest(
            name="AlpacaEval 2",
            prompts=alpaca,
            baseline=alpaca,
            judge=AlpacaEval2(model=model, tables=_gamed_table()),
        ),
        Contest(name="Arena-Hard", prompts=arena, baseline=arena, judge=ArenaHardJudge(version="v0.1", model=model)),
    )


def _gamed_table() -> LocalFile | None:
    """The benchmark's own table for LC lies on the hub, in tatsu-lab/alpaca_eval: None where no mirror holds it."""
    path = Path(os.environ.get("CONG_MIRROR", "")) / ALPACA_EVAL / "df_gamed.csv"
    return LocalFile(path=str(path)) if os.environ.get("CONG_MIRROR") and path.is_file() else None
