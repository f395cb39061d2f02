"""The numbers of a model that decide how much memory it takes, and where they are known without loading it.

    qwen = PUBLISHED["Qwen/Qwen2.5-7B-Instruct"]
    qwen.parameters                           # 7_615_616_512
    qwen.cache_bytes_per_token(itemsize=2)    # 57_344: keys and values of all layers

Decoder-only models with grouped-query attention, a gated feed-forward block and RMSNorm are counted exactly; of others
it is an estimate.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder-only language model in numbers; in brackets the names in a `config.json`."""

    layers: int
    """(num_hidden_layers)"""
    width: int
    """(hidden_size)"""
    heads: int
    """(num_attention_heads)"""
    kv_heads: int
    """(num_key_value_heads)"""
    head_width: int
    """(head_dim)"""
    inner: int
    """(intermediate_size)"""
    vocabulary: int
    """(vocab_size)"""
    tied: bool
    """Whether input and output embeddings are one matrix (tie_word_embeddings)."""
    positions: int
    """(max_position_embeddings)"""
    biased: bool = False
    """Whether the projections to queries, keys and values add a bias, as in Qwen2."""

    @property
    def projected(self) -> int:
        """Width of queries, keys and values together."""
        return (self.heads + 2 * self.kv_heads) * self.head_width

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        attention = self.width * self.projected + self.heads * self.head_width * self.width
        bias = self.projected if self.biased else 0
        layer = attention + bias + 3 * self.width * self.inner + 2 * self.width
        return self.layers * layer + self.width + self.embeddings * (1 if self.tied else 2)

    @property
    def embeddings(self) -> int:
        """Number of parameters of one matrix of embeddings."""
        return self.vocabulary * self.width

    def cache_bytes_per_token(self, *, itemsize: int) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_width * itemsize


NAMES = {
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "hidden_size": ("n_embd", "d_model"),
    "num_attention_heads": ("n_head", "n_heads"),
    "num_key_value_heads": ("num_kv_heads",),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size", "inner_dim", "ffn_intermediate_size"),
    "max_position_embeddings": ("n_positions", "max_seq_len", "n_ctx"),
}
"""What other families call a number: GPT-2, GPT-J and CodeGen, OPT, Falcon, MPT."""


def from_config(config: Mapping[str, Any]) -> Architecture | None:
    """Read the content of a `config.json`; None when it is not that of a decoder with these numbers."""
    text = config.get("text_config") or config
    numbers = {name: _number(text, name) for name in (*NAMES, "vocab_size")}
    layers, width, heads = (numbers[name] for name in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    vocabulary = numbers["vocab_size"]
    if layers is None or width is None or heads is None or vocabulary is None:
        return None
    return Architecture(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=_kv_heads(text, heads=heads) or numbers["num_key_value_heads"] or heads,
        head_width=text.get("head_dim") or width // heads,
        # GPT-2 and its kin leave it out where it is four times the width.
        inner=numbers["intermediate_size"] or 4 * width,
        vocabulary=vocabulary,
        tied=_tied(text),
        positions=numbers["max_position_embeddings"] or 2048,
        biased=text.get("model_type") == "qwen2" or bool(text.get("attention_bias")),
    )


def _number(text: Mapping[str, Any], name: str) -> int | None:
    values = (text.get(other) for other in (name, *NAMES.get(name, ())))
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)


def _kv_heads(text: Mapping[str, Any], *, heads: int) -> int | None:
    """Heads that are cached where a flag decides it: one for all queries in Falcon's first versions and StarCoder."""
    if text.get("new_decoder_architecture"):
        return heads  # transformers repeats Falcon's for the queries that share them before it caches them.
    return 1 if text.get("multi_query") else None


def _tied(text: Mapping[str, Any]) -> bool:
    # A configuration that does not say it leaves it to its class; these two have their embeddings apart.
    return bool(text.get("tie_word_embeddings", text.get("model_type") not in ("llama", "qwen2")))


@lru_cache(maxsize=256)
def read_architecture(config: Path) -> Architecture | None:
    """Return what a `config.json` says; None when there is none that can be read."""
    try:
        return from_config(json.loads(config.read_text()))
    except (OSError, ValueError):
        return None


_QWEN: dict[str, Any] = {"head_width": 128, "biased": True, "positions": 32768}
_QWEN_HALF: dict[str, Any] = _QWEN | {"head_width": 64}
_SMOL: dict[str, Any] = {"head_width": 64, "vocabulary": 49152, "tied": True, "positions": 8192}
_DEBERTA: dict[str, Any] = {"head_width": 64, "tied": True, "positions": 512}
_LLAMA: dict[str, Any] = {"head_width": 128, "kv_heads": 8}
PUBLISHED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Architecture(layers=30, width=576, heads=9, kv_heads=3, inner=1536, **_SMOL),
    "HuggingFaceTB/SmolLM2-360M-Instruct": Architecture(
        layers=32, width=960, heads=15, kv_heads=5, inner=2560, **_SMOL
    ),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": Architecture(
        layers=24, width=2048, heads=32, kv_heads=32, inner=8192, **_SMOL
    ),
    "Qwen/Qwen2.5-0.5B-Instruct": Architecture(
        layers=24, width=896, heads=14, kv_heads=2, inner=4864, vocabulary=151936, tied=True, **_QWEN_HALF
    ),
    "Qwen/Qwen2.5-1.5B-Instruct": Architecture(
        layers=28, width=1536, heads=12, kv_heads=2, inner=8960, vocabulary=151936, tied=True, **_QWEN
    ),
    "Qwen/Qwen2.5-3B-Instruct": Architecture(
        layers=36, width=2048, heads=16, kv_heads=2, inner=11008, vocabulary=151936, tied=True, **_QWEN
    ),
    "Qwen/Qwen2.5-7B-Instruct": Architecture(
        layers=28, width=3584, heads=28, kv_heads=4, inner=18944, vocabulary=152064, tied=False, **_QWEN
    ),
    "Qwen/Qwen2.5-14B-Instruct": Architecture(
        layers=48, width=5120, heads=40, kv_heads=8, inner=13824, vocabulary=152064, tied=False, **_QWEN
    ),
    "meta-llama/Llama-3.2-3B-Instruct": Architecture(
        layers=28, width=3072, heads=24, inner=8192, vocabulary=128256, tied=True, positions=131072, **_LLAMA
    ),
    "meta-llama/Meta-Llama-3-8B-Instruct": Architecture(
        layers=32, width=4096, heads=32, inner=14336, vocabulary=128256, tied=False, positions=8192, **_LLAMA
    ),
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": Architecture(
        layers=32, width=4096, heads=32, inner=14336, vocabulary=128257, tied=False, positions=8192, **_LLAMA
    ),
    # An encoder whose feed-forward block has no gate: its 0.43 billion parameters are overestimated.
    "OpenAssistant/reward-model-deberta-v3-large-v2": Architecture(
        layers=24, width=1024, heads=16, kv_heads=16, inner=4096, vocabulary=128100, **_DEBERTA
    ),
}
"""The `config.json` of the checkpoints of the scales `small` and `paper`."""
