"""Preference pairs that are given: of a file, or of a dataset on the Hugging Face hub.

    pairs = PreferenceFile(file=LocalFile(path="preferences.jsonl"))     # rows of prompt, chosen, rejected
    aligned = DPO(model=weak, data=pairs, beta=0.1, learning_rate=8e-7)

The forms are those of `cong.data.conversations`. Each writes `pairs.parquet` (prompt_id, prompt, chosen, rejected, and
messages where there are several turns); a pair of two equal answers carries no preference, and is dropped and counted.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cong.data.conversations import prompt_row, read_preference
from cong.data.prompts import HubDataset, LocalFile
from cong.data.rows import PAIRS, Row, write_rows
from cong.errors import UserError
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work


@dataclass(frozen=True, kw_only=True)
class PreferenceFile(Stage):
    """The pairs of a .jsonl, .json or .parquet file."""

    file: LocalFile

    def check(self) -> None:
        self._pairs()

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def run(self, ctx: Context) -> None:
        _write(ctx, self._pairs())

    def _pairs(self) -> list[Row]:
        return list(_pairs(self.file.records(), source=self.file.path))


@dataclass(frozen=True, kw_only=True)
class HubPreferences(HubDataset):
    """The first `count` pairs of a hub dataset, or all of them."""

    def run(self, ctx: Context) -> None:
        chosen = itertools.islice(self.records(), self.count)
        places = ((f"row {number}", record) for number, record in enumerate(chosen, start=1))
        _write(ctx, list(_pairs(places, source=self.repo)))


def _pairs(records: Iterable[tuple[str, Row]], *, source: str) -> Iterator[Row]:
    """Yield our rows; raise `UserError` with the place of a row that holds no preference, or when there are none."""
    empty = True
    for place, record in records:
        try:
            turns, chosen, rejected = read_preference(record)
        except ValueError as error:
            raise UserError(f"{source}: {place} {error}") from error
        empty = False
        row = prompt_row(turns)
        # A prompt may come with several pairs: each has an id of its own.
        prompt_id = f"{row['prompt_id']}-{place.split()[-1]}"
        yield row | {"prompt_id": prompt_id, "chosen": chosen, "rejected": rejected}
    if empty:
        raise UserError(f"{source} holds no pairs")


def _write(ctx: Context, pairs: list[Row]) -> None:
    different = [pair for pair in pairs if pair["chosen"] != pair["rejected"]]
    if not different:
        raise UserError("all given pairs hold two equal answers")
    write_rows(ctx.out / PAIRS, different)
    ctx.summary(pairs=len(different), dropped_identical=len(pairs) - len(different))
