"""Stages that yield prompts: of a file, of a dataset on the Hugging Face hub, or the first of another source.

Each writes `prompts.parquet` with the columns `prompt_id` (unique), `prompt` (the last user turn), `messages` (all
turns, where there are more) and `reference` where responses are checked against one: a final answer, or tests.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cong.data.conversations import prompt_row, read_conversation
from cong.data.jsonlines import numbered_lines, parse_object
from cong.data.rows import PROMPTS, REFERENCE, Row, check_prompts, read_rows, write_rows
from cong.data.sizes import published_rows
from cong.errors import NothingLeft, UserError
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work
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

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def row_count(self) -> int:
        return min(self.count, self.prompts.row_count())

    def run(self, ctx: Context) -> None:
        rows = read_rows(ctx.path(self.prompts) / PROMPTS, limit=self.count)
        write_rows(ctx.out / PROMPTS, rows)
        ctx.summary(prompts=len(rows))


@dataclass(frozen=True, kw_only=True)
class Share(Stage):
    """One of `of` equal shares of another source: every `of`-th prompt, the first of them the `number`-th from 0 on."""

    prompts: Stage
    number: int
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.of:
            raise ValueError(f"number = {self.number} is not in [0, {self.of})")

    def label(self) -> str:
        return f"{self.number + 1} of {self.of}"

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def row_count(self) -> int:
        return len(range(self.number, self.prompts.row_count(), self.of))

    def run(self, ctx: Context) -> None:
        rows = read_rows(ctx.path(self.prompts) / PROMPTS)[self.number :: self.of]
        if not rows:
            raise NothingLeft(f"{self.prompts.title} has too few prompts for {self.of} shares")
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

    def records(self) -> Iterator[tuple[str, Row]]:
        """Yield the objects of a .jsonl, .json or .parquet file with their places, such as "line 3"."""
        if self.path.endswith(".parquet"):
            yield from ((f"row {number}", row) for number, row in enumerate(self._parquet_rows(), start=1))
        elif self.path.endswith(".json"):
            yield from ((f"entry {number}", row) for number, row in enumerate(self._json_rows(), start=1))
        else:
            yield from ((f"line {number}", row) for number, row in self.rows(names=()))

    def _parquet_rows(self) -> list[Row]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.read_table(pa.BufferReader(self.read())).to_pylist()
        except pa.ArrowException as error:
            raise UserError(f"{self.path} is no Parquet file: {str(error).splitlines()[0]}") from error

    def _json_rows(self) -> list[Row]:
        try:
            entries = json.loads(self.text())
        except ValueError as error:
            raise UserError(f"{self.path} is no JSON: {error}") from error
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f"{self.path} is no list of JSON objects")
        return entries

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
    """The prompts of a file, in any of the forms of `cong.data.conversations`.

    `prompt_id` (a text or a whole number) stays where there is one; otherwise it is a digest of the prompt, and a
    prompt that comes again is left out. System turns, earlier turns and a column `reference` stay. A prompt is decoded
    as it is written: white space at its ends stays, unless the chat template takes it away.
    """

    VERSION = 2
    file: LocalFile

    def check(self) -> None:
        self.rows()

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def run(self, ctx: Context) -> None:
        rows = self.rows()
        write_rows(ctx.out / PROMPTS, rows)
        ctx.summary(prompts=len(rows))

    def rows(self) -> list[Row]:
        """Return the prompts; raise `UserError` for a row that is none."""
        rows: dict[str, Row] = {}
        for place, record in self.file.records():
            row = _file_row(record, where=f"{self.file.path}: {place}")
            if row["prompt_id"] not in rows:
                rows[row["prompt_id"]] = row
            elif record.get("prompt_id") not in (None, ""):
                raise UserError(f"{self.file.path}: {place}: prompt_id {row['prompt_id']!r} is not unique")
        found = list(rows.values())
        check_prompts(found, source=self.file.path)
        return found


def _file_row(record: Row, *, where: str) -> Row:
    try:
        turns = read_conversation(record)
    except ValueError as error:
        raise UserError(f"{where} {error}") from error
    prompt_id = record.get("prompt_id")
    if isinstance(prompt_id, int) and not isinstance(prompt_id, bool):
        prompt_id = str(prompt_id)
    reference = {REFERENCE: record[REFERENCE]} if record.get(REFERENCE) is not None else {}
    return prompt_row(turns, prompt_id=prompt_id or None) | reference


@dataclass(frozen=True, kw_only=True)
class HubDataset(Stage):
    """Base of what is read of a split of a hub dataset at a commit: `count` rows of it, or all."""

    repo: str
    revision: str
    split: str
    count: int | None = None

    def label(self) -> str:
        return f"{self.repo.split('/')[-1]},{self.split}" + (f",n={self.count}" if self.count else "")

    def check(self) -> None:
        check_hub(self.repo, self.revision, kind="dataset")

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def row_count(self) -> int:
        return published_rows(self.repo, self.split, count=self.count)

    def records(self) -> Iterable[Row]:
        """Return the rows of the split."""
        return hub_records(self.repo, self.revision, self.split)


@dataclass(frozen=True, kw_only=True)
class HubPrompts(HubDataset):
    """The unique prompts of a hub dataset, in any of the forms of `cong.data.conversations`; the id is a digest.

    Rows without a prompt are left out.
    """

    def run(self, ctx: Context) -> None:
        rows = list(unique_prompts(self.records()))[: self.count]
        check_prompts(rows, source=self.title)
        write_rows(ctx.out / PROMPTS, rows)
        ctx.summary(prompts=len(rows))


def hub_records(repo: str, revision: str, split: str, *, config: str | None = None) -> Any:
    """Return a split of a hub dataset at a commit, as the library `datasets` does: an iterable of rows."""
    import datasets

    directory = hub_dir(repo, revision, kind="dataset")
    return datasets.load_dataset(str(directory), config, split=split)


def unique_prompts(records: Iterable[Row]) -> Iterator[Row]:
    """Yield every prompt once."""
    seen: set[str] = set()
    for record in records:
        try:
            row = prompt_row(read_conversation(record))
        except ValueError:
            continue  # Public datasets have rows without text.
        if row["prompt_id"] not in seen:
            seen.add(row["prompt_id"])
            yield row
