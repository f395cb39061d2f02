"""Tokenizers of the tiny families: real byte-level BPE with the special tokens and chat format of their namesakes.

    build_tokenizer(World(), family="llama", directory="out/tokenizer")
    AutoTokenizer.from_pretrained("out/tokenizer").apply_chat_template(messages, add_generation_prompt=True)

As with the real ones, the Qwen-like tokenizer knows no beginning-of-sequence token, and the Llama-like one adds it
both in its chat template and when it encodes a plain text: who encodes a chat-formatted text once more gets it twice.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cong.synthetic.domain import Domain
from cong.synthetic.world import make_documents

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Family = Literal["qwen", "llama"]

_TRAINING_DOCUMENTS = 4000
_CONTEXT = 512

_QWEN_CHAT = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_LLAMA_CHAT = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Style:
    """What sets one family's tokenizer apart."""

    vocabulary: int
    special: tuple[str, ...]
    named: dict[str, str]
    chat_template: str
    word_pattern: str
    turns: str
    """A conversation as the chat template writes it, without special tokens: what the tokenizer is trained on."""
    corpus_seed: int


STYLES: dict[Family, Style] = {
    "qwen": Style(
        vocabulary=512,
        special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        named={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        chat_template=_QWEN_CHAT,
        # Qwen2's own: whatever lies beside a Qwen2 `config.json` is loaded with it, whatever it was trained with.
        word_pattern=(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        turns="user\n{prompt}\nassistant\n{response}",
        corpus_seed=101,
    ),
    "llama": Style(
        vocabulary=640,
        special=(
            "<|begin_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
            "<|finetune_right_pad_id|>",
        ),
        named={
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
            "pad_token": "<|finetune_right_pad_id|>",
        },
        chat_template=_LLAMA_CHAT,
        word_pattern=r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        turns="user\n{prompt}\nassistant\n\n{response}",
        corpus_seed=202,
    ),
}


def build_tokenizer(world: Domain, *, family: Family, directory: str | Path) -> None:
    """Train a family's tokenizer on the world's corpus and save it in Hugging Face format."""
    from transformers import PreTrainedTokenizerFast

    style = STYLES[family]
    tokenizer = _train_bpe(world, style=style)
    if "bos_token" in style.named:
        _begin_every_text(tokenizer, token=style.named["bos_token"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=_CONTEXT, **style.named)
    fast.chat_template = style.chat_template
    fast.save_pretrained(str(directory))


def _train_bpe(world: Domain, *, style: Style) -> "Tokenizer":
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(style.word_pattern), behavior="isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=style.vocabulary - len(style.special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(world, style=style), trainer=trainer)
    # After the training: as in the real vocabularies, special tokens follow the text tokens.
    tokenizer.add_special_tokens(list(style.special))
    return tokenizer


def _corpus(world: Domain, *, style: Style) -> list[str]:
    documents = make_documents(world, count=_TRAINING_DOCUMENTS, seed=style.corpus_seed)
    return [style.turns.format(prompt=d.prompt, response=d.response) for d in documents]


def _begin_every_text(tokenizer: "Tokenizer", *, token: str) -> None:
    from tokenizers import processors

    number = tokenizer.token_to_id(token)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"{token} $A", special_tokens=[(token, number)]),
        ]
    )
