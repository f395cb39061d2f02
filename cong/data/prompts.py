"""Stages that yield prompts: of a file, of a dataset on the Hugging Face hub, or the first of another source.

Each writes `prompts.parquet` with the columns `prompt_id` (unique) and `prompt` (one user turn), and `reference` where
responses are checked against one: a final answer, or tests.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cong.data.jsonlines import lone_surrogate, numbered_lines, parse_object
from cong.data.rows import PROMPTS, Row, check_prompts, read_rows, write_rows
from cong.errors import UserError
from cong.graph.stage import Context, Stage
from cong.models import check_hub, hub_dir


@dataclass(frozen=True, kw_only=True)
class Subset(Stage):
    """The first `count` prompts of another source: a grid search need not decode all of them."""

    prompts: Stage
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count = {self.count} is below 1")

    def label(self) -> str:
        return f"n={self.count}"

    def run(self, ctx: Context) -> None:
        rows = read_rows(ctx.path(self.prompts) / PROMPTS, limit=self.count)
        write_rows(ctx.out / PROMPTS, rows)
        ctx.summary(prompts=len(rows))


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file whose identity is its content."""

    path: str

    def identity(self) -> Any:
        """Return the SHA-256 of the file; raise `UserError` when it cannot be read."""
        return {"sha256": hashlib.sha256(self.read()).hexdigest()}

    def rows(self, *, names: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """Yield the objects of a JSON Lines file with their line numbers; raise `UserError` where a name is missing."""
        for number, line in numbered_lines(self.read()):
            try:
                row = parse_object(line)
            except ValueError as error:
                raise UserError(f"{self.path}: line {number} {error}") from error
            missing = [name for name in names if name not in row]
            if missing:
                raise UserError(f"{self.path}: line {number} has no {missing[0]!r}")
            yield number, row

    def text(self) -> str:
        """Return the content as text; raise `UserError` when it is none."""
        try:
            return self.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path} is not UTF-8: {error}") from error

    def read(self) -> bytes:
        """Return the content; raise `UserError` when it cannot be read."""
        try:
            return Path(self.path).expanduser().read_bytes()
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, kw_only=True)
class PromptFile(Stage):
    """Prompts of a JSON Lines file with `prompt_id` (a text or a whole number) and `prompt` in each line.

    A prompt is decoded as it is written: white space at its ends stays, unless the chat template takes it away.
    """

    file: LocalFile

    def check(self) -> None:
        self._rows()

    def run(self, ctx: Context) -> None:
        rows = self._rows()
        write_rows(ctx.out / PROMPTS, rows)
        ctx.summary(prompts=len(rows))

    def _rows(self) -> list[Row]:
        rows = []
        for number, row in self.file.rows(names=("prompt_id", "prompt")):
            prompt_id = row["prompt_id"]
            if isinstance(prompt_id, int) and not isinstance(prompt_id, bool):
                prompt_id = str(prompt_id)
            if half := lone_surrogate(row):
                raise UserError(f"{self.file.path}: line {number} holds half of a character, {half}")
            rows.append({"prompt_id": prompt_id, "prompt": row["prompt"]})
        check_prompts(rows, source=self.file.path)
        return rows


@dataclass(frozen=True, kw_only=True)
class HubPrompts(Stage):
    """The unique prompts of a hub dataset, from its column `prompt`; the id is a digest of the text."""

    repo: str
    revision: str
    split: str
    count: int | None = None

    def label(self) -> str:
        return f"{self.repo.split('/')[-1]},{self.split}" + (f",n={self.count}" if self.count else "")

    def check(self) -> None:
        check_hub(self.repo, self.revision, kind="dataset")

    def run(self, ctx: Context) -> None:
        import datasets

        directory = hub_dir(self.repo, self.revision, kind="dataset")
        texts = dict.fromkeys(datasets.load_dataset(str(directory), split=self.split)["prompt"])
        ids = ({"prompt_id": hashlib.sha256(text.encode()).hexdigest()[:16], "prompt": text} for text in texts)
        rows = [row for row in ids if row["prompt"].strip()][: self.count]
        check_prompts(rows, source=self.title)
        write_rows(ctx.out / PROMPTS, rows)
        ctx.summary(prompts=len(rows))
