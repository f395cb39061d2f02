"""Is DPO, and SFT, faster here than plain TRL at its defaults, with the same losses on the same batches?

Both train the same model on the same texts for the same epochs; tokenizing, reference log-probabilities, checkpoint and
model saving are counted, imports are not. Every run has a process of its own, and the runs take turns.

    python experiments/bench_training.py --rows 1024 --epochs 2 --repeats 3
    python experiments/bench_training.py --model checkpoints/SmolLM2 --joined 6 --rows 32 --batch 16 --epochs 1
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_texts import Texts, save_model
from bench_tools import Run, measure, spread

from cong.data import PAIRS, RESPONSES, read_rows
from cong.graph.plan import make_plan
from cong.graph.resources import Resources, load_profile
from cong.graph.runner import Runner
from cong.graph.stage import Context
from cong.graph.store import Store
from cong.models import LocalModel

BETA, RATE, LONGEST = 0.5, 1e-4, 512


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one process trains."""

    kind: str
    side: str
    directory: str
    rows: int
    epochs: int
    batch: int
    joined: int

    @property
    def texts(self) -> Texts:
        return Texts(count=self.rows, joined=self.joined)

    @property
    def stage(self) -> Any:
        from cong.training import DPO, SFT

        make = {"dpo": DPO, "sft": SFT}[self.kind]
        settings = {
            "learning_rate": RATE,
            "epochs": self.epochs,
            "global_batch_size": self.batch,
            "max_length": LONGEST,
        }
        settings |= {"beta": BETA} if self.kind == "dpo" else {}
        model = LocalModel(path=f"{self.directory}/model")
        return make(model=model, data=self.texts, **settings)


def run_ours(task: Task, store: Store) -> list[float]:
    """The stages of this library in this process; losses by step."""
    Runner(store=store, resources=load_profile("laptop", ray=False)).run(make_plan({"a": task.stage}, store))
    lines = (store.directory(task.stage) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def run_trl(task: Task, store: Store, *, same_batches: bool = False) -> list[float]:
    """TRL's trainer with its defaults, or fed with the very batches of `run_ours`; losses by step."""
    from transformers import AutoTokenizer

    make, config = trl_classes()[task.kind]
    chosen: dict[str, Any] = {"gradient_accumulation_steps": task.batch // 8, "num_train_epochs": task.epochs}
    if same_batches:
        chosen = {
            "per_device_train_batch_size": task.batch, "num_train_epochs": 1, "train_sampling_strategy": "sequential",
            "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "gradient_checkpointing": False,
        }  # fmt: skip
    if task.kind == "dpo":
        chosen["beta"] = BETA
    out = store.root / f"trl-{task.kind}"
    # On a CPU there is no choice: its defaults are for a GPU.
    chosen |= {"use_cpu": True, "bf16": False, "model_init_kwargs": {"device_map": None, "dtype": "float32"}}
    chosen |= {"learning_rate": RATE, "logging_steps": 1, "report_to": "none", "disable_tqdm": True}
    arguments = config(output_dir=str(out), **chosen)
    source = store.directory(task.texts) / PAIRS
    rows = read_rows(source)
    if same_batches:
        rows = [rows[index] for index in our_order(task, rows)]
    trainer = make(
        f"{task.directory}/model",
        args=arguments,
        train_dataset=_dataset(rows, task.kind),
        processing_class=AutoTokenizer.from_pretrained(f"{task.directory}/model"),
    )
    trainer.train()
    trainer.save_model(str(out / "model"))
    return [point["loss"] for point in trainer.state.log_history if "loss" in point]


def trl_classes() -> dict[str, tuple[Any, Any]]:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    return {"dpo": (DPOTrainer, DPOConfig), "sft": (SFTTrainer, SFTConfig)}


def our_order(task: Task, rows: list[dict]) -> list[int]:
    """Indices of the rows of all epochs as our stages train on them."""
    from transformers import AutoTokenizer

    from cong.training.order import row_order
    from cong.training.rows import completion_rows, preference_rows

    tokenizer = AutoTokenizer.from_pretrained(f"{task.directory}/model")
    responses = [row | {"response": row["chosen"], "error": None} for row in rows]
    if task.kind == "dpo":
        tokens = preference_rows(tokenizer, rows, max_length=LONGEST)
    else:
        tokens = completion_rows(tokenizer, responses, max_length=LONGEST)
    return row_order(lengths=tokens.lengths, epochs=task.epochs, global_batch_size=task.batch, seed=0)


def _dataset(rows: list[dict], kind: str) -> Any:
    from datasets import Dataset

    def turn(role: str, text: str) -> list[dict]:
        return [{"role": role, "content": text}]

    if kind == "sft":
        return Dataset.from_list(
            [{"prompt": turn("user", r["prompt"]), "completion": turn("assistant", r["chosen"])} for r in rows]
        )
    return Dataset.from_list(
        [
            {
                "prompt": turn("user", row["prompt"]),
                "chosen": turn("assistant", row["chosen"]),
                "rejected": turn("assistant", row["rejected"]),
            }
            for row in rows
        ]
    )


def child(task: Task) -> None:
    """Run one task in this process and print what was measured as JSON."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    trl_classes()  # imported now, so that neither side pays for it in the measurement
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name))
        store.prepare()
        resources = Resources(name="bench").changed(ray=False, actors=0)
        Runner(store=store, resources=resources).run(make_plan({"a": task.texts}, store))
        if task.side == "same":
            print(json.dumps({"losses": run_trl(task, store, same_batches=True)}))
            return
        losses: list[float] = []
        job = {"ours": run_ours, "trl": run_trl}[task.side]

        def train() -> int:
            losses.extend(job(task, store))
            return len(losses)

        run = measure(train, device="cpu")
        print(json.dumps(dataclasses.asdict(run) | {"losses": losses}))


def start(task: Task) -> dict[str, Any]:
    """Run a task in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(dataclasses.asdict(task))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {task.side} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def count_tokens(directory: Path, texts: Texts, *, kind: str) -> int:
    """Tokens of all sequences of one epoch."""
    from transformers import AutoTokenizer

    from cong.training.rows import completion_rows, preference_rows

    tokenizer = AutoTokenizer.from_pretrained(directory / "model")
    with tempfile.TemporaryDirectory() as name:
        texts.run(
            Context(out=Path(name), root=Path(name), resources=Resources(name="bench"), locate=lambda _: Path(name))
        )
        if kind == "dpo":
            return sum(preference_rows(tokenizer, read_rows(Path(name) / PAIRS), max_length=LONGEST).tokens)
        return sum(completion_rows(tokenizer, read_rows(Path(name) / RESPONSES), max_length=LONGEST).tokens)


def compare(kind: str, directory: Path, *, repeats: int, **load: int) -> dict[str, Any]:
    """Both sides in turn; rates in tokens per second, and how far the losses on the same batches are apart."""
    tasks = {side: Task(kind=kind, side=side, directory=str(directory), **load) for side in ("ours", "trl", "same")}
    tokens = load["epochs"] * count_tokens(directory, tasks["ours"].texts, kind=kind)
    runs: dict[str, list[Run]] = {"ours": [], "trl": []}
    ours: list[float] = []
    for _ in range(repeats):
        for side, found in runs.items():
            told = start(tasks[side])
            losses = told.pop("losses")
            found.append(Run(**told))
            if side == "ours":
                ours = losses
    same = start(tasks["same"])["losses"]
    ratios = [theirs.seconds / own.seconds for own, theirs in zip(runs["ours"], runs["trl"], strict=True)]
    cpu = [theirs.cpu_seconds / own.cpu_seconds for own, theirs in zip(runs["ours"], runs["trl"], strict=True)]
    return {
        "kind": kind,
        **{f"{side} tokens/s": spread([tokens / run.seconds for run in found]) for side, found in runs.items()},
        **{f"{side} peak GB": max(run.peak_bytes for run in found) / 1e9 for side, found in runs.items()},
        "times faster": spread(ratios),
        "times less CPU": spread(cpu),
        "steps": len(ours),
        "largest difference of losses": max(abs(a - b) for a, b in zip(ours, same, strict=True)),
    }


def plot(results: list[dict[str, Any]], *, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 2.6), layout="constrained")
    names = [f"{result['kind'].upper()}, {side}" for result in results for side in ("trl", "ours")]
    rates = [result[f"{side} tokens/s"] for result in results for side in ("trl", "ours")]
    medians = [rate[0] for rate in rates]
    spreads = [[rate[0] - rate[1] for rate in rates], [rate[2] - rate[0] for rate in rates]]
    bars = axes.barh(names, medians, xerr=spreads, capsize=3, color=["tab:gray", "tab:blue"] * len(results), alpha=0.8)
    axes.bar_label(bars, [f"{median:,.0f}" for median in medians], padding=8)
    axes.set(xlabel="tokens per second, all costs counted", title="TRL at its defaults, and the stages of cong")
    axes.set_xlim(right=1.3 * max(rate[2] for rate in rates))
    axes.invert_yaxis()
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["dpo", "sft"], choices=["dpo", "sft"])
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--joined", type=int, default=1, help="most documents of a response")
    parser.add_argument("--model", type=Path, help="directory of a checkpoint; a tiny one is made without")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("bench_training.png"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(Task(**json.loads(arguments.child)))
        return
    with tempfile.TemporaryDirectory() as name:
        if arguments.model:
            (Path(name) / "model").symlink_to(arguments.model.resolve())
        else:
            save_model(Path(name) / "model")
        settings = {key: getattr(arguments, key) for key in ("rows", "epochs", "batch", "joined", "repeats")}
        results = [compare(kind, Path(name), **settings) for kind in arguments.kinds]
    for result in results:
        print(json.dumps(result, indent=1))
    plot(results, path=arguments.output)
    arguments.output.with_suffix(".json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
