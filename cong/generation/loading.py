"""Loading one model or a weak pair with its tokenizers: the same for decoding and for scoring.

tokenizer, pre_tokenizer = load_tokenizers(post, pre)
models = load_models(post, pre, resources)
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.graph.resources import Resources
from cong.models import LocalModel
from cong.models.chat import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizers(post: Path, pre: Path | None) -> "tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase | None]":
    """Return the tokenizers of pi_r and of pi_ref; raise `UserError` when one is missing or empty.

    The chat template of pi_r formats the prompts of both models, in decoding and in scoring.
    """
    if pre is None:
        return load_tokenizer(post), None
    pre_tokenizer = load_tokenizer(pre)
    # An adapter is often saved alone; its tokenizer is that of its base.
    alone = LocalModel(path=str(post)).is_adapter and not (post / "tokenizer_config.json").is_file()
    return pre_tokenizer if alone else load_tokenizer(post), pre_tokenizer


def check_vocabularies(post: Path, pre: Path | None, *, tokenizers: "tuple[Any, Any]") -> None:
    """Raise `ValueError` when the token ids of a pair mean different things."""
    if pre is None:
        return
    from cong.decoding import check_pair
    from cong.decoding.models import read_config

    base = pre if LocalModel(path=str(post)).is_adapter else post
    check_pair(
        post_tokenizer=tokenizers[0],
        pre_tokenizer=tokenizers[1],
        post_config=read_config(base),
        pre_config=read_config(pre),
    )


def check_anchor(anchor: Path, pre: Path, *, tokenizers: "tuple[Any, Any]") -> None:
    """Raise `ValueError` when the token ids of an anchor mean others than those of the pair that tunes it."""
    from cong.decoding import check_pair
    from cong.decoding.models import read_config

    check_pair(
        post_tokenizer=tokenizers[0],
        pre_tokenizer=tokenizers[1],
        post_config=read_config(anchor),
        pre_config=read_config(pre),
        names=("anchor's", "pre-alignment"),
    )


def load_models(post: Path, pre: Path | None, resources: Resources) -> list[Any]:
    """Return pi_r, and pi_ref where there is one, on the device; raise `UserError` when their weights do not fit."""
    from cong.decoding import load_model, load_pair

    load = {"dtype": resources.hardware.dtype, "device": resources.hardware.device}
    return [load_model(post, **load)] if pre is None else list(load_pair(post=post, pre=pre, **load))
