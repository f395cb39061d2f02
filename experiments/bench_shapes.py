"""How near training comes to the limits of one GPU, at the sizes of real models: SFT and DPO with random weights.

Every shape runs in a process of its own, which makes the model on the device and times the optimizer steps; loading,
saving and the first steps are left out. MFU is the arithmetic of the model alone, 6 operations per weight and token and
attention within a row (no recomputation is counted), over the matrix rate that was measured just before.

    python experiments/bench_shapes.py --sizes 0.5B 3B 7B --kinds sft dpo --longest 2048 --output bench_shapes.json
    python experiments/bench_shapes.py --device cpu --sizes tiny --longest 64 --rows 32 --batch 8
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench_decoding import SIZES, build_model
from bench_texts import Texts
from bench_tools import device_limits, spread
from transformers import TrainerCallback
from transformers.utils import logging

from cong.graph.resources import Resources
from cong.models import LocalModel
from cong.training import DPO, SFT
from cong.training.blocks import cut
from cong.training.job import Job, Schedule
from cong.training.loop import prepare_layers, prepare_process
from cong.training.settings import arguments

MEDIAN_TOKENS, WIDTH = 420, 0.7
"""Of the log-normal lengths of the ragged load, which are about those of instructions with their answers."""


class StepTimes(TrainerCallback):
    """Seconds of every optimizer step, the device's work included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begun = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._begun = _now()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(_now() - self._begun)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def draw_lengths(arguments: argparse.Namespace, *, count: int) -> list[int]:
    """Lengths of sequences: all the longest, or log-normal ones up to it."""
    rng, longest = random.Random(0), arguments.longest
    if arguments.load == "even":
        return [longest] * count
    return [min(max(int(rng.lognormvariate(0, WIDTH) * MEDIAN_TOKENS), 16), longest) for _ in range(count)]


def build_rows(arguments: argparse.Namespace, *, vocabulary: int) -> tuple[Any, list[int]]:
    """A dataset of random tokens in the order of training, and the lengths of all sequences of its rows."""
    from datasets import Dataset

    rng, sides = random.Random(1), 2 if arguments.kind == "dpo" else 1
    lengths = draw_lengths(arguments, count=sides * arguments.rows)
    rows = [lengths[start : start + sides] for start in range(0, len(lengths), sides)]
    for start in range(0, len(rows), arguments.batch):
        rows[start : start + arguments.batch] = sorted(rows[start : start + arguments.batch], key=lambda row: -max(row))

    def draw(count: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(count)]

    if arguments.kind == "sft":
        ids = [draw(row[0]) for row in rows]
        labels = [[-100] * (len(row) // 3) + row[len(row) // 3 :] for row in ids]
        columns = {"input_ids": ids, "labels": labels}
    else:
        prompts = [draw(min(row) // 3) for row in rows]
        chosen, rejected = (
            [draw(row[side] - len(prompt)) for row, prompt in zip(rows, prompts, strict=True)] for side in (0, 1)
        )
        logps = {f"ref_{side}_logps": [-100.0] * len(rows) for side in ("chosen", "rejected")}
        columns = {"prompt_ids": prompts, "chosen_ids": chosen, "rejected_ids": rejected, **logps}
    # As a stage writes them: they tell how long the rows of a step are.
    columns |= {"length": [max(row) for row in rows], "tokens": [sum(row) for row in rows]}
    return Dataset.from_dict(columns), [length for row in rows for length in row]


def model_operations(model: Any, lengths: Sequence[int]) -> float:
    """Operations of forward and backward passes: weights that multiply, and causal attention within each row."""
    config = model.config
    weights = model.num_parameters() - (0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size)
    attention = 6 * config.num_hidden_layers * config.hidden_size * sum(length**2 for length in lengths)
    return 6 * weights * sum(lengths) + attention


def build_job(arguments: argparse.Namespace, directory: Path) -> Job:
    """A job as a stage makes it; only its settings are used."""
    stage = {"sft": SFT, "dpo": DPO}[arguments.kind]
    chosen: dict[str, Any] = {"beta": 0.1} if arguments.kind == "dpo" else {}
    made: Any = stage(
        model=LocalModel(path=str(directory)),
        data=Texts(count=arguments.rows),
        learning_rate=1e-6,
        max_length=arguments.longest,
        **chosen,
    )
    resources = Resources(name="bench").changed(
        ray=False,
        actors=0,
        device=arguments.device,
        dtype="float32" if arguments.device == "cpu" else "bfloat16",
        micro_tokens=arguments.micro_tokens,
        compile=arguments.compile,
    )
    schedule = Schedule(
        learning_rate=1e-6, epochs=1, global_batch_size=arguments.batch, scheduler="cosine", warmup_ratio=0.1,
        weight_decay=0.0, seed=0,
    )  # fmt: skip
    names: dict[str, Any] = {
        "model": directory,
        "out": directory,
        "metrics": directory / "m",
        "progress": directory / "p",
    }
    return Job(schedule=schedule, trainer_factory=made.trainer_factory(), resources=resources, **names)


def train_shape(options: argparse.Namespace) -> dict[str, Any]:
    """Train one shape in this process; what was measured."""
    logging.set_verbosity_error()
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    _, rate = device_limits(dtype=dtype, device=options.device)
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as name:
        job = build_job(options, Path(name))
        prepare_process(job.resources)
        model = build_model(options.size, seed=0, dtype=torch.float32, device=options.device)
        model.train().requires_grad_(True)
        model.config.pad_token_id = 0
        dataset, lengths = build_rows(options, vocabulary=model.config.vocab_size)
        steps = options.rows // options.batch
        times = StepTimes()
        blocks = cut(dataset["tokens"][:], step=options.batch, workers=1, most=options.micro_tokens)
        parts = {
            "model": model,
            "blocks": blocks,
            "train_dataset": dataset,
            "processing_class": _tokenizer(),
            "callbacks": [times],
        }
        settings = arguments(job, steps=steps, accumulation=blocks.accumulation) | {"logging_steps": 1}
        trainer = job.trainer_factory(settings=settings, parts=parts)
        prepare_layers(trainer, job.resources)
        if options.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
        losses = [point["loss"] for point in trainer.state.log_history if "loss" in point]
    return _measured(options, model, lengths, times.seconds, losses=losses, rate=rate)


def _measured(
    options: argparse.Namespace,
    model: Any,
    lengths: list[int],
    seconds: list[float],
    *,
    losses: list[float],
    rate: float,
) -> dict[str, Any]:
    sides = 2 if options.kind == "dpo" else 1
    size = sides * options.batch
    counted = range(options.warm_up, len(seconds))
    parts = [lengths[step * size : (step + 1) * size] for step in counted]
    tokens = [sum(part) / seconds[step] for part, step in zip(parts, counted, strict=True)]
    shares = [model_operations(model, part) / seconds[step] / rate for part, step in zip(parts, counted, strict=True)]
    return {
        **{
            name: getattr(options, name)
            for name in ("size", "kind", "load", "longest", "batch", "micro_tokens", "compile")
        },
        "card": torch.cuda.get_device_name() if options.device != "cpu" else "cpu",
        "matrix TFLOP/s": rate / 1e12,
        "tokens/s": spread(tokens),
        "MFU": spread(shares),
        "peak GB": torch.cuda.max_memory_allocated() / 1e9 if options.device != "cpu" else None,
        "steps": len(seconds),
        "losses": losses,
    }


def _tokenizer() -> Any:
    from cong.synthetic.tokenizer import build_tokenizer
    from cong.synthetic.world import World

    directory = Path(tempfile.mkdtemp())
    build_tokenizer(World(), family="qwen", directory=directory)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["0.5B", "3B", "7B"], choices=SIZES)
    parser.add_argument("--kinds", nargs="+", default=["sft", "dpo"], choices=["sft", "dpo"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--load", default="ragged", choices=["ragged", "even"])
    parser.add_argument("--longest", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=192)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--micro-tokens", type=int, default=8192)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--warm-up", type=int, default=2, help="optimizer steps that are not counted")
    parser.add_argument("--output", type=Path, default=Path("bench_shapes.json"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    if options.child:
        size, kind = options.child.split(",")
        print(json.dumps(train_shape(argparse.Namespace(**vars(options) | {"size": size, "kind": kind}))))
        return
    results = []
    for size in options.sizes:
        for kind in options.kinds:
            command = [sys.executable, __file__, *sys.argv[1:], "--child", f"{size},{kind}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                print(f"{size} {kind} failed: {done.stderr[-1500:]}")
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            results.append(result)
            print(
                {name: value for name, value in result.items() if name != "losses"}, result["losses"][-3:], flush=True
            )
    options.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
