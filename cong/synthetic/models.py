"""Tiny language models of two families, pretrained on the world's corpus and saved in Hugging Face format.

    build_tokenizer(world, family="qwen", directory="out/tokenizer")
    pretrain(world=world, family="qwen", size="3B", tokenizer_dir="out/tokenizer", output_dir="out/weak",
             steps=700, batch_documents=64, learning_rate=4e-3, seed=0, log=print, checkpoint_dir="out/state")
    AutoModelForCausalLM.from_pretrained("out/weak")

A killed pretraining continues from its last saved state and, with the same number of threads, ends with the very same
weights: a batch depends only on its number and the seed, so the state is the weights, the optimizer and the step.
"""

import math
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cong.data.finite import check_finite_weights
from cong.graph.libraries import import_libraries
from cong.models.architecture import Architecture
from cong.synthetic.domain import Document, Domain
from cong.synthetic.tokenizer import STYLES, Family
from cong.synthetic.world import make_documents

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Size = Literal["1.5B", "3B", "7B", "14B"]

_CHUNK_STEPS = 50
_SAVE_STEPS = 100
_WARMUP_SHARE = 0.05
_CONTEXT = 512
_IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The dimensions of one size."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    tied: bool


SIZES: dict[Size, Shape] = {
    "1.5B": Shape(layers=2, width=48, heads=4, kv_heads=2, inner=128, tied=True),
    "3B": Shape(layers=2, width=96, heads=4, kv_heads=2, inner=256, tied=True),
    "7B": Shape(layers=3, width=128, heads=4, kv_heads=2, inner=352, tied=False),
    "14B": Shape(layers=4, width=192, heads=6, kv_heads=2, inner=512, tied=False),
}
"""Each size stands in the role of a real checkpoint; as there, the small ones tie input and output embeddings."""


def architecture(family: Family, size: Size) -> Architecture:
    """Return a size in numbers, with the vocabulary that its family's tokenizer is trained to."""
    shape = SIZES[size]
    return Architecture(
        layers=shape.layers,
        width=shape.width,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_width=shape.width // shape.heads,
        inner=shape.inner,
        vocabulary=STYLES[family].vocabulary,
        tied=shape.tied,
        positions=_CONTEXT,
        biased=family == "qwen",
    )


def build_config(family: Family, size: Size, tokenizer: "PreTrainedTokenizerBase") -> "PretrainedConfig":
    """Return the model configuration of a size, with the tokenizer's vocabulary and special tokens."""
    from transformers import LlamaConfig, Qwen2Config

    shape = SIZES[size]
    make = {"qwen": Qwen2Config, "llama": LlamaConfig}[family]
    return make(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=_CONTEXT,
        initializer_range=0.05,
        tie_word_embeddings=shape.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def pretrain(
    *,
    world: Domain,
    family: Family,
    size: Size,
    tokenizer_dir: str | Path,
    output_dir: str | Path,
    steps: int,
    batch_documents: int,
    learning_rate: float,
    seed: int,
    log: Callable[[int, float], None],
    checkpoint_dir: str | Path | None = None,
) -> dict[str, float]:
    """Train a model from scratch on the world's corpus; returns its loss per response token on unseen prompts."""
    import_libraries("torch", "transformers.models.auto.modeling_auto")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_dir))
    started = time.monotonic()
    run = _Run(
        model=_new_model(build_config(family, size, tokenizer), seed=seed),
        steps=steps,
        learning_rate=learning_rate,
        state_path=Path(checkpoint_dir) / "pretraining.pt" if checkpoint_dir else None,
    )
    first = run.resume()
    batches = _batches(world, tokenizer, first=first, steps=steps, size=batch_documents, seed=seed)
    for step, (input_ids, labels) in enumerate(batches, start=first):
        log(step, run.advance(step, input_ids, labels))
    check_finite_weights(run.model)
    _save(run.model, tokenizer, directory=output_dir)
    return {
        "heldout_loss": heldout_loss(world, model=run.model, tokenizer=tokenizer),
        "parameters": float(run.model.num_parameters()),
        "steps_run": float(steps - first),
        "seconds": time.monotonic() - started,
    }


def heldout_loss(
    world: Domain, *, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", documents: int = 1024
) -> float:
    """Mean loss per response token on the corpus's texts about held-out prompts: a size's capability."""
    import torch

    texts = make_documents(world, count=documents, seed=0, split="heldout")
    rows = sorted(_encode(texts, tokenizer), key=lambda row: len(row[0]))
    total, tokens = 0.0, 0
    with torch.no_grad():
        for start in range(0, documents, 128):
            input_ids, labels = _pad(rows[start : start + 128], pad=_pad_id(tokenizer))
            scored = int((labels[:, 1:] != _IGNORED).sum())
            total += response_loss(model, input_ids, labels).item() * scored
            tokens += scored
    return total / tokens


def response_loss(model: "PreTrainedModel", input_ids: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """Mean cross-entropy over the labelled tokens; the output head runs on those positions only."""
    import torch.nn.functional as F

    # Padding is on the right, so the causal mask alone hides it from every labelled token.
    hidden_BTD = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    targets_BT = labels[:, 1:]
    kept_BT = targets_BT != _IGNORED
    logits_NV = model.lm_head(hidden_BTD[:, :-1][kept_BT])
    return F.cross_entropy(logits_NV, targets_BT[kept_BT])


class _Run:
    """A model under training with its optimizer, and the file that holds both."""

    def __init__(self, *, model: "PreTrainedModel", steps: int, learning_rate: float, state_path: Path | None) -> None:
        import torch

        self.model = model
        self.steps = steps
        self.learning_rate = learning_rate
        self.state_path = state_path
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True
        )

    def resume(self) -> int:
        """Load the saved state, if there is one, and return the first step still to do."""
        import torch

        if self.state_path is None or not self.state_path.exists():
            return 0
        state = torch.load(self.state_path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        return state["next_step"]

    def advance(self, step: int, input_ids: "torch.Tensor", labels: "torch.Tensor") -> float:
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * _schedule(step, steps=self.steps)
        loss = response_loss(self.model, input_ids, labels)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if self.state_path is not None and (step + 1) % _SAVE_STEPS == 0:
            self.save(next_step=step + 1)
        return loss.item()

    def save(self, *, next_step: int) -> None:
        import torch

        assert self.state_path is not None
        self.state_path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.state_path.with_suffix(f".{os.getpid()}.tmp")
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "next_step": next_step}
        torch.save(state, unfinished)
        os.replace(unfinished, self.state_path)


def _new_model(config: "PretrainedConfig", *, seed: int) -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa").train()


def _schedule(step: int, *, steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    warmup = max(1, round(steps * _WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def _batches(
    world: Domain, tokenizer: "PreTrainedTokenizerBase", *, first: int, steps: int, size: int, seed: int
) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
    """Yield batches first to steps. Within a chunk, texts of like length share a batch: less padding to compute."""
    for chunk in range(first // _CHUNK_STEPS, math.ceil(steps / _CHUNK_STEPS)):
        count = _CHUNK_STEPS * size
        rows = _encode(make_documents(world, count=count, seed=seed, start=chunk * count), tokenizer)
        rows.sort(key=lambda row: len(row[0]))
        order = list(range(_CHUNK_STEPS))
        random.Random(f"batches/{seed}/{chunk}").shuffle(order)
        for position, batch in enumerate(order):
            if first <= chunk * _CHUNK_STEPS + position < steps:
                yield _pad(rows[batch * size : (batch + 1) * size], pad=_pad_id(tokenizer))


def _encode(documents: list[Document], tokenizer: "PreTrainedTokenizerBase") -> list[tuple[list[int], int]]:
    """Return (token ids up to the end token, length of the prompt) per document, by way of the chat template."""
    chats = [[{"role": "user", "content": d.prompt}, {"role": "assistant", "content": d.response}] for d in documents]
    asked: Any = tokenizer.apply_chat_template([c[:1] for c in chats], add_generation_prompt=True, return_dict=False)
    whole: Any = tokenizer.apply_chat_template(chats, return_dict=False)
    return [(_up_to_end(w, end=tokenizer.eos_token_id), len(a)) for w, a in zip(whole, asked, strict=True)]


def _up_to_end(ids: list[int], *, end: Any) -> list[int]:
    # Some chat formats write a line break after the last end token; generation never reaches it.
    return ids[: len(ids) - ids[::-1].index(end)]


def _pad(rows: list[tuple[list[int], int]], *, pad: int) -> tuple["torch.Tensor", "torch.Tensor"]:
    import torch

    width = max(len(ids) for ids, _ in rows)
    input_ids = [ids + [pad] * (width - len(ids)) for ids, _ in rows]
    labels = [[_IGNORED] * asked + ids[asked:] + [_IGNORED] * (width - len(ids)) for ids, asked in rows]
    return torch.tensor(input_ids), torch.tensor(labels)


def _pad_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    pad = tokenizer.pad_token_id
    assert isinstance(pad, int)
    return pad


def _save(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, directory: str | Path) -> None:
    model.eval()
    model.save_pretrained(str(directory))
    tokenizer.save_pretrained(str(directory))
