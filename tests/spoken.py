"""Small checkpoints that chat: a byte-level tokenizer with a template, beside a random model."""

from collections.abc import Sequence
from pathlib import Path

from reference_decoding import tiny_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage

SPECIAL = ("<pad>", "<doc>", "<turn>", "<end>")
TEMPLATE = (
    "{% for m in messages %}<turn>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
DATED = "<turn>system\nIt is {{ strftime_now('%Y-%m-%d') }}.<end>\n" + TEMPLATE
INLINE = Resources(name="inline").changed(ray=False, actors=0, slots=4)


def byte_tokenizer(
    *, template: str | None = TEMPLATE, eos: str = "<end>", merges: Sequence[tuple[str, str]] = ()
) -> PreTrainedTokenizerFast:
    """A tokenizer of printable ASCII, one token a character or merge, with four special tokens behind them."""
    alphabet = [left + right for left, right in merges] + [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    vocabulary = {text: index for index, text in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos, pad_token="<pad>")
    tokenizer.chat_template = template
    return tokenizer


def checkpoint(directory: Path, *, seed: int = 0, family: str = "llama", tokenizer=None, **config) -> Path:
    """Write a random model that ends at <doc> and <end>, and its tokenizer."""
    tokenizer = byte_tokenizer() if tokenizer is None else tokenizer
    ends = tokenizer.convert_tokens_to_ids(["<doc>", "<end>"])
    settings = {
        "vocab_size": len(tokenizer),
        "eos_token_id": ends,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    tiny_model(family, seed=seed, **settings | config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def context(out: Path, inputs: dict[Stage, Path] | None = None) -> Context:
    """A context whose stages lie where `inputs` says."""
    places = {stage.fingerprint: path for stage, path in (inputs or {}).items()}
    return Context(out=out, root=out, resources=INLINE, locate=lambda stage: places[stage.fingerprint])
