"""How a reward model is given a conversation: by its chat template, or as a question and its answer.

    encode = READERS["pair"]
    encode(tokenizer, [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}])

Encoders such as BERT and DeBERTa have no chat template: they were trained on two texts that their tokenizer joins,
`tokenizer(question, answer)`, which is also how the cards of such reward models call them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cong.models.chat import Messages, encode_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Reads = Literal["chat", "pair"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as a reward model reads it."""

    tokens: tuple[int, ...]
    segments: tuple[int, ...] | None = None
    """To which of two texts each token belongs (`token_type_ids`); None where the model is not told."""


def _chat(tokenizer: "PreTrainedTokenizerBase", turns: Messages) -> Encoded:
    return Encoded(encode_chat(tokenizer, turns, open_turn=False))


def _pair(tokenizer: "PreTrainedTokenizerBase", turns: Messages) -> Encoded:
    """Return question and answer; raise `ValueError` for other turns, which nothing says how to join."""
    roles = [turn["role"] for turn in turns]
    if roles != ["user", "assistant"]:
        raise ValueError(f"a reward model that reads a question and an answer is given the turns {', '.join(roles)}")
    question, answer = (turn["content"] for turn in turns)
    # Cut off, two responses that differ at their ends would have one reward.
    found: Any = tokenizer(question, answer, truncation=False)
    segments = found.get("token_type_ids")
    return Encoded(tuple(found["input_ids"]), None if segments is None else tuple(segments))


READERS: dict[Reads, Callable[["PreTrainedTokenizerBase", Messages], Encoded]] = {"chat": _chat, "pair": _pair}


def positions_of(config: Any) -> int | None:
    """Return how many tokens a model has positions for; None where it knows only distances, as DeBERTa-v3."""
    if not getattr(config, "position_biased_input", True):
        return None
    return getattr(config, "max_position_embeddings", None)
