"""Whether a chat template teaches a model to end: behind a response must stand a token at which decoding stops.

A model that is trained without it decodes up to its limit ever after, so such a checkpoint is refused. A template is
not mended here, since decoding formats its prompts by the same one: give the checkpoint another template, or name the
token that its template writes as `eos_token_id` in its generation_config.json.
"""

import functools
from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.graph.stage import Stage
from cong.models import Model, root_model

_TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def check_ending_at_hand(model: Model) -> None:
    """Do `check_ending` for a model, or the checkpoint that it was trained from, where that lies on this machine."""
    root = root_model(model)
    directory = None if isinstance(root, Stage) else root.at_hand()
    if directory:
        _check_checkpoint(directory)


@functools.cache
def _check_checkpoint(directory: Path) -> None:
    if not (directory / "tokenizer_config.json").is_file():
        return
    from transformers import AutoTokenizer

    check_ending(directory, AutoTokenizer.from_pretrained(directory))


def check_ending(directory: Path, tokenizer: Any) -> None:
    """Raise `UserError` when the template of a checkpoint never writes an end token behind a response."""
    from cong.training.rows import common_prefix

    if not tokenizer.chat_template:
        raise UserError(f"{directory} has no chat template: prompts and responses cannot be formatted for training")
    prompt, whole = (_encoded(tokenizer, turns) for turns in (_TURNS[:1], _TURNS))
    learned = whole[common_prefix(prompt, whole) :].tolist()
    ends = _end_tokens(directory, tokenizer)
    if not ends & set(learned):
        raise UserError(
            f"the chat template of {directory} never teaches to end: behind a response it writes "
            f"{tokenizer.decode(learned).partition('b')[2]!r}, and decoding stops at "
            f"{', '.join(repr(tokenizer.decode([end])) for end in sorted(ends)) or 'no token'}"
        )


def _encoded(tokenizer: Any, turns: list[dict[str, str]]) -> Any:
    import numpy as np

    return np.asarray(
        tokenizer.apply_chat_template(turns, add_generation_prompt=len(turns) == 1, tokenize=True, return_dict=False)
    )


def _end_tokens(directory: Path, tokenizer: Any) -> frozenset[int]:
    """Return the tokens at which decoding stops."""
    from transformers import AutoConfig, GenerationConfig

    from cong.decoding.models import end_token_ids

    if (directory / "generation_config.json").is_file():
        return end_token_ids(GenerationConfig.from_pretrained(directory), tokenizer)
    return end_token_ids(GenerationConfig.from_model_config(AutoConfig.from_pretrained(directory)), tokenizer)
