"""From text to tokens: the trained model's own chat template formats prompts and responses.

Text crosses models, token ids never do. The completion begins where the tokens of the prompt (with the assistant's
header) and those of the whole conversation part, as in TRL. A response that was cut off at its maximum length is
learned with its end of turn like any other, as the usual recipes do; the number of such rows is in the summary. Texts
are learned as they were written: white space at their ends stays, unless the chat template takes it away. A template
that asks what day it is gets `cong.models.chat.CHAT_DATE`, as in decoding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.data import Row
from cong.data.conversations import conversation
from cong.models.chat import check_vocabulary, encode_chats

if TYPE_CHECKING:
    import numpy as np

Messages = list[dict[str, str]]
_CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """Rows as columns, and what was counted on the way."""

    columns: dict[str, list[Any]]
    lengths: list[int]
    """Length of each row's longest sequence: what decides about padding."""
    tokens: list[int]
    """Tokens of each row, over all of its sequences."""
    counts: dict[str, int]

    def save(self, path: Path) -> None:
        """Write an Arrow stream that the training processes map into memory; it appears whole or not at all."""
        import pyarrow as pa

        table = pa.table({**self.columns, "length": self.lengths, "tokens": self.tokens})
        temporary = path.with_name(f"{path.name}.tmp")
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=_CHUNK)
        temporary.replace(path)


def completion_rows(tokenizer: Any, rows: Sequence[Row], *, max_length: int, keep: Sequence[str] = ()) -> TokenRows:
    """Tokenize prompts and responses; labels are -100 outside of the response (Eq. 11 sums over y given x).

    `keep` names columns of the rows that are carried over, None where a row lacks one.
    """
    import numpy as np

    good = _usable(rows, texts=["response"])
    wholes = _encode(tokenizer, [_with(row, "response") for row in good], open_turn=False)
    starts = [common_prefix(*pair) for pair in zip(_prompts(tokenizer, good), wholes, strict=True)]
    kept = [index for index, start in enumerate(starts) if start < max_length]
    ids = [wholes[index][:max_length] for index in kept]
    labels = [np.where(np.arange(len(row)) < starts[index], -100, row) for index, row in zip(kept, ids, strict=True)]
    counts = _counts(rows=rows, good=good, kept=[len(wholes[index]) for index in kept], max_length=max_length)
    counts["rows_cut_off"] = sum(good[index].get("finish_reason") == "length" for index in kept)
    lengths = [len(row) for row in ids]
    columns = {"input_ids": ids, "labels": labels} | {name: [good[i].get(name) for i in kept] for name in keep}
    return TokenRows(columns=columns, lengths=lengths, tokens=lengths, counts=counts)


def preference_rows(tokenizer: Any, rows: Sequence[Row], *, max_length: int) -> TokenRows:
    """Tokenize prompts with their chosen and rejected responses; the columns are those of TRL's preference trainers."""
    good = _usable(rows, texts=["chosen", "rejected"])
    prompts = _prompts(tokenizer, good)
    chosen = _encode(tokenizer, [_with(row, "chosen") for row in good], open_turn=False)
    rejected = _encode(tokenizer, [_with(row, "rejected") for row in good], open_turn=False)
    starts = [min(common_prefix(p, c), common_prefix(p, r)) for p, c, r in zip(prompts, chosen, rejected, strict=True)]
    kept = [index for index, start in enumerate(starts) if start < max_length]
    columns = {
        "prompt_id": [good[index]["prompt_id"] for index in kept],
        "prompt_ids": [prompts[index][: starts[index]] for index in kept],
        "chosen_ids": [chosen[index][starts[index] : max_length] for index in kept],
        "rejected_ids": [rejected[index][starts[index] : max_length] for index in kept],
    }
    sides = [(len(chosen[index]), len(rejected[index])) for index in kept]
    return TokenRows(
        columns=columns,
        lengths=[min(max(pair), max_length) for pair in sides],
        tokens=[min(one, max_length) + min(other, max_length) for one, other in sides],
        counts=_counts(rows=rows, good=good, kept=[max(pair) for pair in sides], max_length=max_length),
    )


def common_prefix(first: "np.ndarray", second: "np.ndarray") -> int:
    """Return how many leading tokens two sequences share."""
    shorter = min(len(first), len(second))
    differs = (first[:shorter] != second[:shorter]).nonzero()[0]
    return int(differs[0]) if len(differs) else shorter


def _usable(rows: Sequence[Row], *, texts: Sequence[str]) -> list[Row]:
    return [row for row in rows if not row.get("error") and all((row[text] or "").strip() for text in texts)]


def _with(row: Row, column: str) -> Messages:
    return [*conversation(row), {"role": "assistant", "content": row[column]}]


def _prompts(tokenizer: Any, rows: Sequence[Row]) -> "list[np.ndarray]":
    return _encode(tokenizer, [conversation(row) for row in rows], open_turn=True)


def _encode(tokenizer: Any, conversations: Sequence[Messages], *, open_turn: bool) -> "list[np.ndarray]":
    import numpy as np

    check_vocabulary(tokenizer, Path(tokenizer.name_or_path))
    encoded = []
    for start in range(0, len(conversations), _CHUNK):
        chunk = encode_chats(tokenizer, list(conversations[start : start + _CHUNK]), open_turn=open_turn)
        encoded += [np.asarray(ids, dtype=np.int32) for ids in chunk]
    return encoded


def _counts(*, rows: Sequence[Row], good: Sequence[Row], kept: Sequence[int], max_length: int) -> dict[str, int]:
    """Count rows; `kept` holds the untruncated lengths of those that are trained on."""
    return {
        "rows": len(kept),
        "rows_unusable": len(rows) - len(good),
        "rows_too_long": len(good) - len(kept),
        "rows_truncated": sum(length > max_length for length in kept),
    }
