"""A row as tokens, and tokens as text: one way for decoding, and for scoring what was decoded.

    prompt = prompt_tokens(tokenizer, row)
    text = response_text(tokenizer, completion.token_ids)
    response = ResponseTokens(tokenizer, stop_ids=stop_token_ids(model, tokenizer)).of(row)

The tokens of a response are those that its model wrote, its end token among them, as far as the scoring model has the
same ones. Text of another family is tokenized, and ends with the token that closes a turn in the scorer's own template.
Neither prompts nor responses are stripped. A response that is still going on (`finish_reason` None) may end within a
character of several bytes, which its tokens alone hold: as text it ends before that character.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cong.data.conversations import conversation
from cong.data.rows import Row, chat_prompt_ids
from cong.models.chat import encode_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS, STOP_TOKEN = "response_token_ids", "stop_token_id"
"""Columns of responses: the tokens before the end, and the id of the token that ended it, None where none did."""
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What decoding writes for the first bytes of a character."""


def prompt_tokens(tokenizer: "PreTrainedTokenizerBase", row: Row) -> tuple[int, ...]:
    """Return the tokens of a row's chat, or of its one user turn, up to where the assistant begins."""
    return chat_prompt_ids(tokenizer, conversation(row))


def response_text(tokenizer: "PreTrainedTokenizerBase", token_ids: Sequence[int]) -> str:
    """Return the text of a response, without special tokens."""
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=True))


class ResponseTokens:
    """The tokens of responses for a scoring model, whose rows may end with any of `stop_ids`."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, stop_ids: frozenset[int]) -> None:
        self._tokenizer, self._stop_ids = tokenizer, stop_ids

    def of(self, row: Row) -> tuple[int, ...]:
        """Return the tokens of a row's response and of its end, where it has one."""
        written = self._written(row)
        own = written is not None
        text = written if written is not None else self._tokenizer(_whole(row), add_special_tokens=False).input_ids
        return (*text, *self._end(row, own=own))

    def _written(self, row: Row) -> list[int] | None:
        """The tokens that decoding chose, None unless they are the response for this tokenizer too."""
        tokens = row.get(TOKENS)
        if tokens is None or any(token >= len(self._tokenizer) for token in tokens):
            return None
        return tokens if response_text(self._tokenizer, tokens) == row["response"] else None

    def _end(self, row: Row, *, own: bool) -> tuple[int, ...]:
        if row["finish_reason"] != "stop":
            return ()
        stop = row.get(STOP_TOKEN)
        if own and STOP_TOKEN in row and (stop is None or stop in self._stop_ids):
            return () if stop is None else (stop,)
        return () if self._turn_end is None else (self._turn_end,)

    @cached_property
    def _turn_end(self) -> int | None:
        """The end token with which the chat template closes the assistant's turn."""
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        asked = encode_chat(self._tokenizer, turns[:1], open_turn=True)
        whole = encode_chat(self._tokenizer, turns, open_turn=False)
        shared = next((i for i, pair in enumerate(zip(asked, whole, strict=False)) if pair[0] != pair[1]), len(asked))
        own: Any = self._tokenizer.eos_token_id
        return next((token for token in whole[shared:] if token in self._stop_ids), own)


def _whole(row: Row) -> str:
    """The text of a response, of one that is still going on as far as its last character is complete."""
    return row["response"] if row["finish_reason"] is not None else row["response"].rstrip(_INCOMPLETE)
