"""A tiny model, rows and contexts for the tests of training."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from cong.data import write_rows
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.models import LocalModel
from cong.training import DPO, SFT

WORDS = [a + b for a in ("ba", "du", "ki", "lo", "me", "sa") for b in ("n", "r", "sh", "t", "v")]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Given(Stage):
    """An input stage whose directory the test fills."""

    directory: str


def make_model(directory: Path, *, hidden: int = 32, seed: int = 0) -> LocalModel:
    """Write a Qwen2 model of a few thousand parameters with a BPE tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        WORDS, trainers.BpeTrainer(vocab_size=384, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|pad|>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(directory)
    end, pad = core.token_to_id("<|im_end|>"), core.token_to_id("<|pad|>")
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
        eos_token_id=end, pad_token_id=pad, bos_token_id=None,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(directory)
    return LocalModel(path=str(directory))


def texts(*, rows: int, seed: int = 0) -> list[dict]:
    """Return prompts with a longer chosen and a shorter rejected response; the response depends on the prompt."""
    rng = random.Random(seed)
    made = []
    for number in range(rows):
        words = rng.choices(WORDS, k=rng.randint(2, 6))
        chosen, rejected = " ".join(reversed(words)), " ".join(rng.choices(WORDS, k=rng.randint(1, 9)))
        made.append({"prompt_id": f"p{number}", "prompt": " ".join(words), "chosen": chosen, "rejected": rejected})
    return made


def make_responses(directory: Path, *, rows: int) -> Given:
    """Write `responses.parquet`."""
    directory.mkdir(parents=True, exist_ok=True)
    made = [{"prompt_id": r["prompt_id"], "prompt": r["prompt"], "response": r["chosen"]} for r in texts(rows=rows)]
    write_rows(directory / "responses.parquet", [{**row, "error": None, "finish_reason": "stop"} for row in made])
    return Given(directory=str(directory))


def make_pairs(directory: Path, *, rows: int) -> Given:
    """Write `pairs.parquet`."""
    directory.mkdir(parents=True, exist_ok=True)
    write_rows(directory / "pairs.parquet", texts(rows=rows))
    return Given(directory=str(directory))


def resources(**overrides) -> Resources:
    """Return one plain CPU worker, or what the test asks for."""
    return Resources(name="test").changed(**{"micro_tokens": 80, **overrides})


def run(stage: Stage, root: Path, **overrides) -> Path:
    """Run a stage after the stages that it reads and return its directory."""

    def locate(item: Stage) -> Path:
        return Path(item.directory) if isinstance(item, Given) else root / item.name / item.slug

    for item in stage.inputs:
        if not isinstance(item, Given) and not locate(item).exists():
            run(item, root, **overrides)
    execution = stage.execution(resources(**overrides))
    ctx = Context(out=locate(stage), root=locate(stage), resources=execution, locate=locate)
    ctx.out.mkdir(parents=True, exist_ok=True)
    stage.run(ctx)
    (ctx.out / "summary.json").write_text(json.dumps(ctx.results))
    return ctx.out


def summary(directory: Path) -> dict:
    """Return what a stage that `run` ran said about itself."""
    return json.loads((directory / "summary.json").read_text())


def losses(directory: Path) -> list[float]:
    """Return the loss of every optimizer step."""
    points = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [point["step"] for point in points] == list(range(1, len(points) + 1))
    return [point["loss"] for point in points]


def sft(tmp_path: Path, *, rows: int = 40, **fields) -> SFT:
    """Return an SFT of the tiny model on made responses."""
    model, data = make_model(tmp_path / "model"), make_responses(tmp_path / "responses", rows=rows)
    return SFT(**{"model": model, "data": data, "learning_rate": 5e-3, "global_batch_size": 8, **fields})


def dpo(tmp_path: Path, *, rows: int = 40, **fields) -> DPO:
    """Return a DPO of the tiny model on made pairs."""
    model, data = make_model(tmp_path / "model"), make_pairs(tmp_path / "pairs", rows=rows)
    return DPO(**{"model": model, "data": data, "beta": 0.5, "learning_rate": 2e-3, "global_batch_size": 8, **fields})
