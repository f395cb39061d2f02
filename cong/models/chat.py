"""Chat templates and tokenizers: the one way in which prompts, responses and training rows become tokens.

    tokenizer = load_tokenizer(directory)
    ids = encode_chat(tokenizer, [{"role": "user", "content": "Hello"}], open_turn=True)

Some templates write today's date into every conversation (Llama 3.2, Mistral Small 3, Granite). A text would then
depend on the day on which it was made, under one fingerprint; here today is always `CHAT_DATE`, the date that Llama's
own templates fall back on. A checkpoint whose template asks for it has the date in its identity.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]

CHAT_DATE = "2024-07-26"
"""The day that every chat template is given, as an ISO date; the time is noon."""
_FEW_TEXTS = 8
"""Some classes begin with a handful of tokens before they have read any file."""
_ASKING = "strftime_now"
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_TEMPLATE_FOLDER = "additional_chat_templates"


def template_arguments() -> dict[str, Any]:
    """Return what every call of `apply_chat_template` is given beside the conversation."""
    return {_ASKING: datetime.fromisoformat(f"{CHAT_DATE}T12:00:00").strftime}


def encode_chat(tokenizer: "PreTrainedTokenizerBase", messages: Messages, *, open_turn: bool) -> tuple[int, ...]:
    """Return the tokens of a conversation; `open_turn` adds the header of the assistant's next turn.

    The template writes its special tokens itself; tokenizing its text a second time would add another BOS.
    """
    tokens: Any = tokenizer.apply_chat_template(
        messages, add_generation_prompt=open_turn, return_dict=False, **template_arguments()
    )
    return tuple(tokens)


def encode_chats(
    tokenizer: "PreTrainedTokenizerBase", conversations: list[Messages], *, open_turn: bool
) -> list[list[int]]:
    """Return the tokens of several conversations."""
    encoded: Any = tokenizer.apply_chat_template(
        conversations, add_generation_prompt=open_turn, tokenize=True, return_dict=True, **template_arguments()
    )
    return encoded["input_ids"]


def asks_for_date(directory: Path) -> bool:
    """Return whether a chat template among the files of a checkpoint asks what day it is."""
    return any(_ASKING in path.read_text(encoding="utf-8", errors="replace") for path in _template_files(directory))


def has_template(directory: Path) -> bool:
    """Return whether a checkpoint has a chat template among its files; one without a tokenizer's files may have one."""
    files = list(_template_files(directory))
    settings = directory / _TEMPLATE_FILES[-1]
    if not settings.is_file() or any(path != settings for path in files):
        return True
    return bool(json.loads(settings.read_text(encoding="utf-8")).get("chat_template"))


def _template_files(directory: Path) -> Iterator[Path]:
    names = [*(directory / name for name in _TEMPLATE_FILES), *sorted((directory / _TEMPLATE_FOLDER).glob("*.jinja"))]
    return (path for path in names if path.is_file())


def load_tokenizer(directory: str | Path) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a checkpoint; raise `UserError` when there is none, or one that knows no text.

    transformers builds an empty tokenizer where the vocabulary's file is missing: every prompt would be the same.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory)
    except Exception as error:
        # Parsers in several languages read a tokenizer's files, and raise what they like.
        line = next(iter(str(error).strip().splitlines()), "")
        raise UserError(f"{directory}: the tokenizer cannot be loaded: {type(error).__name__}: {line}") from error
    check_vocabulary(tokenizer, Path(directory))
    return tokenizer


def check_vocabulary(tokenizer: "PreTrainedTokenizerBase", directory: Path) -> None:
    """Raise `UserError` when a tokenizer, loaded from a directory, knows no text."""
    names = sorted(set((tokenizer.vocab_files_names or {}).values())) or ["tokenizer.json"]
    stored = any((directory / name).is_file() for name in names)
    texts = _texts(tokenizer)
    if not texts or (len(texts) < _FEW_TEXTS and not stored):
        raise UserError(f"{directory}: the tokenizer is empty: there is none of {', '.join(names)} with a vocabulary")


def _texts(tokenizer: Any) -> list[str]:
    """Return the tokens that stand for text: those that are neither special nor added beside a vocabulary."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)
    return [token for token in tokenizer.get_vocab() if token not in added]
