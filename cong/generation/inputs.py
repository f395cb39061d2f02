"""The prompts of `cong decode`: a file, or a dataset on the Hugging Face hub at a commit.

    source = parse_source("prompts.jsonl")                               # or .parquet
    source = parse_source("openai/gsm8k@e53f048856ff4f594e959d75785d2c2d37b678ee:test")
    rows = read_source(source)

A line that cannot be read becomes a row with an `error`; the others are decoded all the same. Texts are decoded as they
are written: white space at their ends stays, unless the chat template takes it away.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cong.data import Row, read_rows
from cong.data.jsonlines import lone_surrogate, numbered_lines, parse_object
from cong.data.prompts import hub_records
from cong.errors import UserError
from cong.models import check_hub

_ANSWERING = ("assistant", "model", "gpt")
COLUMNS = ("messages", "prompt", "prompt_id")
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[^:]*)(?::(?P<split>.*))?")


@dataclass(frozen=True, kw_only=True)
class HubSplit:
    """A split of a hub dataset at a commit, with a column `prompt` or `messages`."""

    repo: str
    revision: str
    split: str


def parse_source(text: str) -> Path | HubSplit:
    """Return what `--prompts` names; raise `UserError` when it is neither a file nor a pinned dataset."""
    path = Path(text)
    if path.suffix in (".jsonl", ".parquet"):
        return path
    found = _HUB.fullmatch(text)
    if found is None:
        raise UserError(f"{text}: prompts are a .jsonl or .parquet file, or a dataset OWNER/NAME@COMMIT:SPLIT")
    if not re.fullmatch(r"[0-9a-f]{40}", found["revision"]) or not found["split"]:
        raise UserError(f"{text}: a dataset is written OWNER/NAME@COMMIT:SPLIT, its commit with 40 hexadecimal digits")
    return HubSplit(**found.groupdict())


def check_source(source: Path | HubSplit) -> None:
    """Raise `UserError` when the prompts are not available."""
    if isinstance(source, HubSplit):
        check_hub(source.repo, source.revision, kind="dataset")
    else:
        _bytes(source)


def source_identity(source: Path | HubSplit) -> Any:
    """What tells two sources of prompts apart: the content of a file, or the pinned name of a dataset."""
    if isinstance(source, HubSplit):
        return [source.repo, source.revision, source.split]
    return hashlib.sha256(_bytes(source)).hexdigest()


def read_source(source: Path | HubSplit) -> list[Row]:
    """Return the rows; raise `UserError` when there are none."""
    if isinstance(source, HubSplit):
        rows, name = _hub_rows(source), source.repo
    else:
        rows, name = _file_rows(source), str(source)
    if not rows:
        raise UserError(f"{name} holds no prompts")
    return rows


def row_fault(row: Row, prompt_id: str, seen: set[str]) -> str | None:
    """What is wrong with a row, or None."""
    unknown = set(row) - set(COLUMNS)
    if unknown:
        return f"unknown column {sorted(unknown)[0]!r}; known are {', '.join(COLUMNS)}"
    if half := lone_surrogate(row):
        return f"there is half of a character, {half}, in it"
    if prompt_id in seen:
        return f"prompt_id {prompt_id!r} is not unique"
    if row.get("messages"):
        return _fault_of_messages(row["messages"], row.get("prompt"))
    text = row.get("prompt")
    return None if isinstance(text, str) and text.strip() else "there is no text in 'prompt' and no 'messages'"


def asked(row: Row) -> list[dict[str, str]] | None:
    """Return the turns to decode behind where a row has some: without the answer where its prompt asks for another."""
    messages = row.get("messages") or None
    return messages[:-1] if messages and _is_answered(messages) else messages


def _fault_of_messages(messages: Any, prompt: Any) -> str | None:
    turns: list[Any] = messages if isinstance(messages, list) else [None]
    if not all(_is_turn(turn) for turn in turns):
        return "'messages' must be a list of {role, content}, both texts"
    if _is_answered(turns) and _spoken(turns[:-1]) != [("user", prompt)]:
        return "'messages' end with the assistant's answer; leave it out to have another one decoded"
    return None


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)


def _is_answered(messages: list[dict[str, str]]) -> bool:
    return messages[-1]["role"] in _ANSWERING


def _spoken(messages: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in messages]


def _hub_rows(source: HubSplit) -> list[Row]:
    try:
        dataset = hub_records(source.repo, source.revision, source.split)
    except (ValueError, OSError) as error:
        raise UserError(f"{source.repo}:{source.split} cannot be read: {str(error).splitlines()[0]}") from error
    # A public dataset has columns of its own beside those that are asked for: they are left out, not complained of.
    names = [name for name in COLUMNS if name in (dataset.column_names or ())]
    if not {"prompt", "messages"} & set(names):
        raise UserError(f"{source.repo}:{source.split} has neither a column 'prompt' nor 'messages'")
    if "prompt" in names and "messages" in names:
        names.remove("messages")  # In preference datasets it is the conversation with its answer.
    return dataset.select_columns(names).to_list()


def _file_rows(path: Path) -> list[Row]:
    try:
        if path.suffix == ".parquet":
            return read_rows(path, columns=_columns(path))
        return [_parsed(line) for _, line in numbered_lines(path.read_bytes())]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _columns(path: Path) -> list[str]:
    """Return the columns of a Parquet file but an index that pandas wrote among them."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    indices = (schema.pandas_metadata or {}).get("index_columns", ())
    return [name for name in schema.names if name in COLUMNS or name not in indices]


def _parsed(line: bytes) -> Row:
    try:
        return parse_object(line)
    except ValueError as error:
        return {"error": str(error)}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
