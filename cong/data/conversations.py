"""Rows of other people's files as conversations: the column names and forms that are usual in the field.

    read_conversation({"instruction": "Translate.", "input": "Haus"})    # one turn of a user
    read_preference({"prompt": "...", "chosen": "...", "rejected": "..."})

A prompt is a text (`prompt`, `instruction` with `input`, `question`, `query`, `text`) or turns (`prompt` as a list,
`messages`, `conversations` with `from` and `value`), the first of these that a row has; a column `system` goes before
it. Turns end where the assistant is to speak: an answer at their end is left out. Of a preference the answers are
texts, or conversations that part after the prompt (as in TRL).

Rows of the store carry `prompt`, the text of the last user turn, and `messages`, all turns as JSON text, where there
are more turns than one.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cong.data.jsonlines import lone_surrogate
from cong.data.rows import REFERENCE

Turn = dict[str, str]
Conversation = list[Turn]
MESSAGES = "messages"
"""Column of prompts and of what is made of them: all turns before the response as JSON; none for a single user turn."""
CARRIED = (MESSAGES, REFERENCE)
"""Columns that stay with a prompt through decoding and scoring, where it has them."""
_TEXTS = ("prompt", "instruction", "question", "query", "text")
_TURNS = ("messages", "conversations", "conversation")
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant"}
FORMS = ", ".join((*_TEXTS, *_TURNS))


def conversation(row: Mapping[str, Any]) -> Conversation:
    """Return the turns of one of our own rows, up to where the assistant begins."""
    turns = row.get(MESSAGES)
    if not turns:
        return [{"role": "user", "content": row["prompt"]}]
    return json.loads(turns) if isinstance(turns, str) else list(turns)


def prompt_row(turns: Conversation, *, prompt_id: Any = None) -> dict[str, Any]:
    """Return our row of a prompt: id (a digest of the turns unless given), text of the last turn, and all turns."""
    content = json.dumps(turns, ensure_ascii=False)
    alone = len(turns) == 1 and turns[0]["role"] == "user"
    digest = hashlib.sha256((turns[0]["content"] if alone else content).encode(errors="surrogatepass")).hexdigest()[:16]
    row: dict[str, Any] = {"prompt_id": digest if prompt_id is None else prompt_id, "prompt": turns[-1]["content"]}
    return row if alone else row | {MESSAGES: content}


def read_conversation(row: Mapping[str, Any]) -> Conversation:
    """Return the turns of a row in any of the usual forms; raise `ValueError` where there is no prompt in it."""
    turns = _without_answer(_turns_of(row))
    if not turns or turns[-1]["role"] != "user":
        raise ValueError("has no turn of a user before the answer")
    if not turns[-1]["content"].strip():
        raise ValueError("has no text in its prompt")
    _check(turns)
    system = row.get("system")
    if isinstance(system, str) and system.strip() and turns[0]["role"] != "system":
        return [{"role": "system", "content": system}, *turns]
    return turns


def read_preference(row: Mapping[str, Any]) -> tuple[Conversation, str, str]:
    """Return prompt, chosen and rejected answer of a row; raise `ValueError` where it holds no preference."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        return read_conversation(row), _text(chosen, "chosen"), _text(rejected, "rejected")
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise ValueError("has no 'chosen' and 'rejected', both texts or both conversations")
    before, good, bad = _parted(_cleaned(chosen), _cleaned(rejected))
    if not before:
        before = read_conversation(row)
    _check(before)
    return before, _text(good, "chosen"), _text(bad, "rejected")


def _parted(chosen: Conversation, rejected: Conversation) -> tuple[Conversation, str, str]:
    """Return what two conversations share, and their last turns."""
    ends = chosen[-1:] + rejected[-1:]
    if len(ends) < 2 or any(turn["role"] != "assistant" for turn in ends):
        raise ValueError("has a 'chosen' or 'rejected' that does not end with a turn of the assistant")
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("has 'chosen' and 'rejected' that differ before their last turns: they answer two prompts")
    return chosen[:-1], ends[0]["content"], ends[1]["content"]


def _turns_of(row: Mapping[str, Any]) -> Conversation:
    if isinstance(row.get(MESSAGES), str) and row[MESSAGES]:
        return _cleaned(json.loads(row[MESSAGES]))  # A row of a store.
    for name in (*_TEXTS, *_TURNS):
        value = row.get(name)
        if isinstance(value, list) and value:
            return _cleaned(value)
        if isinstance(value, str):
            extra = row.get("input") if name == "instruction" else None
            return [{"role": "user", "content": f"{value}\n\n{extra}" if extra else value}]
    raise ValueError(f"has no 'prompt', nor any other of {FORMS}")


def _cleaned(turns: Any) -> Conversation:
    """Return turns as role and content, also of the form with `from` and `value`."""
    if not isinstance(turns, list):
        raise ValueError("has a conversation that is no list of turns")
    return [_turn(turn) for turn in turns]


def _turn(turn: Any) -> Turn:
    if not isinstance(turn, Mapping):
        raise ValueError("has a turn without 'role' and 'content' (or 'from' and 'value'), both texts")
    role, content = (turn.get("role", turn.get("from")), turn.get("content", turn.get("value")))
    if not isinstance(role, str) or not isinstance(content, str):
        raise ValueError("has a turn without 'role' and 'content' (or 'from' and 'value'), both texts")
    return {"role": _ROLES.get(role, role), "content": content}


def _without_answer(turns: Conversation) -> Conversation:
    return turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns


def _text(answer: str, name: str) -> str:
    if not answer.strip():
        raise ValueError(f"has no text in {name!r}")
    if half := lone_surrogate({name: answer}):
        raise ValueError(f"holds half of a character, {half}")
    return answer


def _check(turns: Conversation) -> None:
    if half := lone_surrogate({"turns": turns}):
        raise ValueError(f"holds half of a character, {half}")
