"""Rows: Parquet files in which every row carries its `prompt_id`. Joins go by it, never by position.

Prompts have the columns `prompt_id` and `prompt`; responses add `sample`, `response` and what decoding knows of them.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.errors import UserError
from cong.models.chat import encode_chat

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

PROMPTS = "prompts.parquet"
RESPONSES = "responses.parquet"
PAIRS = "pairs.parquet"
SCORES = "scores.parquet"
REFERENCE = "reference"
"""Column of prompts, and of the responses to them, that holds what a response is checked against."""
WEIGHT = "weight"
"""Column of pairs by which a training may multiply their losses."""
MARGINS = "margins"
"""Column of pairs with one number per member of a committee: by how much it prefers the chosen response."""

Row = dict[str, Any]


def read_rows(
    path: Path, *, columns: Sequence[str] | None = None, optional: Sequence[str] = (), limit: int | None = None
) -> list[Row]:
    """Return the rows of a Parquet file, or the first `limit` of them; of `optional` columns those that it has."""
    import pyarrow.parquet as pq

    # One file, not a dataset: a directory named `alpha=0.3-...` would otherwise be read as a partition column.
    with pq.ParquetFile(path) as file:
        chosen = [*columns, *(name for name in optional if name in file.schema_arrow.names)] if columns else None
        if limit is None:
            return file.read(columns=chosen).to_pylist()
        first = next(file.iter_batches(batch_size=limit, columns=chosen), None)
        return [] if first is None else first.to_pylist()


def write_rows(path: Path, rows: Sequence[Row], *, notes: dict[str, str] | None = None) -> None:
    """Write rows to a Parquet file that appears whole or not at all; `notes` go into the metadata of its schema."""
    _write_table(path, as_table(rows).replace_schema_metadata(notes))


def copy_rows(source: Path, target: Path, *, row_ids: Sequence[str]) -> None:
    """Write the rows of a Parquet file that have these ids, in this order, with all columns and notes as they are."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        table = file.read()
    places = {row_id: place for place, row_id in enumerate(table["row_id"].to_pylist())}
    # Rows never become Python objects: responses hold a list of tokens each.
    _write_table(target, table.take([places[row_id] for row_id in row_ids]))


def _write_table(path: Path, table: "pa.Table") -> None:
    import pyarrow.parquet as pq

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(table, temporary, compression="zstd")
    os.replace(temporary, path)


def as_table(rows: Sequence[Row]) -> "pa.Table":
    """Return rows as an Arrow table of all columns that any of them has."""
    import pyarrow as pa

    # `Table.from_pylist` would take the columns of the first row, and drop what only later ones have.
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def by_prompt(rows: Iterable[Row]) -> dict[str, Row]:
    """Index rows that hold each prompt once; raise `ValueError` on a prompt that comes twice."""
    found: dict[str, Row] = {}
    for row in rows:
        if row["prompt_id"] in found:
            raise ValueError(f"prompt_id {row['prompt_id']!r} comes twice where one row per prompt is expected")
        found[row["prompt_id"]] = row
    return found


def check_prompts(rows: Sequence[Row], *, source: str) -> None:
    """Raise `UserError` unless there are prompts, all with text and with ids of their own."""
    if not rows:
        raise UserError(f"{source} holds no prompts")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
            raise UserError(f"{source}: row {number} has no text in 'prompt'")
        if not isinstance(row.get("prompt_id"), str) or not row["prompt_id"]:
            raise UserError(f"{source}: row {number} has no 'prompt_id'")
    repeated = [name for name, count in Counter(row["prompt_id"] for row in rows).items() if count > 1]
    if repeated:
        raise UserError(f"{source}: prompt_id {repeated[0]!r} is not unique ({len(repeated)} ids are repeated)")


def check_failures(rows: Sequence[Row], max_share: float, *, name: str = "row_id") -> None:
    """Raise `RuntimeError` when more than the allowed share of rows carries an `error`."""
    failed = [row for row in rows if row["error"] is not None]
    if len(failed) > max_share * len(rows):
        raise RuntimeError(
            f"{len(failed)} of {len(rows)} rows failed, more than the {max_share:.1%} allowed; "
            f"the first is {failed[0][name]}: {failed[0]['error']}"
        )


def row_seed(*, seed: int, prompt_id: str, sample: int = 0) -> int:
    """Return a row's own seed in [0, 2**63): its text then depends on no batch size, actor or restart."""
    digest = hashlib.blake2b(f"{seed}/{prompt_id}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def chat_prompt_ids(tokenizer: "PreTrainedTokenizerBase", prompt: str | list[dict[str, str]]) -> tuple[int, ...]:
    """Return the tokens of a chat, or of one user turn, up to where the assistant begins (`cong.models.chat`)."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return encode_chat(tokenizer, messages, open_turn=True)
