"""The training loop of one process: alone, or as one of Ray Train's workers.

It keeps no state of its own: called again after a kill, it continues from the last complete checkpoint.
"""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from cong.data.finite import check_finite_weights
from cong.graph.journal import replace_text, truncate_metrics
from cong.graph.libraries import import_libraries
from cong.graph.resources import Resources
from cong.models.adapters import name_base
from cong.models.weights import make_savable
from cong.training import checkpoints
from cong.training.blocks import cut
from cong.training.job import Job
from cong.training.order import row_order
from cong.training.settings import arguments


def train(job: Job) -> None:
    """Train, save the model into `job.trained` and the final numbers into `job.result`."""
    prepare_process(job.resources)
    _connect(job.resources)
    from transformers import AutoTokenizer

    from cong.training.dropout import no_dropout

    dataset = ordered_rows(job)
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    blocks = cut(
        dataset["tokens"][:],
        step=job.schedule.global_batch_size,
        workers=job.resources.training.workers,
        most=job.resources.training.micro_tokens,
    )
    # Settings before the model: under ZeRO-3 it is loaded in parts, which it must know from them.
    settings = arguments(job, steps=len(dataset) // blocks.rows_per_step, accumulation=blocks.accumulation)
    parts = {
        "blocks": blocks,
        "model": str(job.model),
        "train_dataset": dataset,
        "processing_class": tokenizer,
        "callbacks": _callbacks(job),
        "lora": job.lora,
    }
    trainer = job.trainer_factory(settings=settings, parts=parts)
    _silence(trainer)
    prepare_layers(trainer, job.resources)
    if job.lora is None:
        make_savable(trainer.model)
    resumed = _resume(job, trainer)
    started = time.monotonic()
    with no_dropout(trainer.model):
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    seconds = time.monotonic() - started
    save_model(job, trainer)
    if trainer.is_world_process_zero():
        _write_result(job, trainer, dataset, first_step=checkpoints.step_of(resumed), seconds=seconds)


def prepare_process(resources: Resources) -> None:
    """Set what holds for the whole process: threads, no bars in the log, and a head that skips prompt tokens."""
    import_libraries("cong.training.trainers")
    import torch
    from transformers.utils import logging

    from cong.training.trainers import score_responses_only

    score_responses_only()
    logging.disable_progress_bar()
    if resources.hardware.device == "cpu":
        torch.set_num_threads(resources.hardware.threads)


def _connect(resources: Resources) -> None:
    """Let DeepSpeed communicate on a CPU, which it would not find out by itself."""
    if resources.training.deepspeed != "none" and resources.hardware.device == "cpu":
        import_libraries("deepspeed", "deepspeed.ops")
        import deepspeed
        import deepspeed.ops

        _leave_out_the_compiler()
        # A kernel for inference alone, which would be compiled here first. A worker that dies meanwhile leaves a lock
        # behind that all later ones wait for.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)


def _leave_out_the_compiler() -> None:
    """Import the one module of DeepSpeed that imports torch's compiler: its optimizer is not used here."""
    before = os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        import_libraries("deepspeed.runtime.zero.muon.original_muon")
    finally:
        del os.environ["TORCHDYNAMO_DISABLE"]
        os.environ |= {} if before is None else {"TORCHDYNAMO_DISABLE": before}


def ordered_rows(job: Job) -> Any:
    """Return the rows of the whole training in their order, mapped from the file of tokens."""
    from datasets import Dataset

    schedule = job.schedule
    rows = Dataset.from_file(str(job.tokens))
    order = row_order(
        lengths=rows["length"][:],
        epochs=schedule.epochs,
        global_batch_size=schedule.global_batch_size,
        seed=schedule.seed,
    )
    return rows.select(order)


def save_model(job: Job, trainer: Any) -> None:
    """Save the model: weights in the run's dtype, or an adapter, with what lies beside the initial model's weights."""
    import torch

    partial = job.out / ".model"
    if job.resources.training.deepspeed == "none" and job.lora is None:
        trainer.model.to(getattr(torch, job.resources.hardware.dtype))
    check_finite_weights(trainer.model)
    trainer.save_model(str(partial))
    if trainer.is_world_process_zero():
        (partial / "training_args.bin").unlink()
        if job.lora is not None:
            (partial / "README.md").unlink()
            name_base(partial, base=job.base)
        _copy_companions(job.model, partial)
        shutil.rmtree(job.trained, ignore_errors=True)
        partial.replace(job.trained)


def _copy_companions(source: Path, target: Path) -> None:
    from transformers import AutoTokenizer

    # The trainer may have set a padding token or changed when generation ends.
    AutoTokenizer.from_pretrained(source).save_pretrained(target)
    if (source / "generation_config.json").exists():
        shutil.copy(source / "generation_config.json", target)


def _callbacks(job: Job) -> list[Any]:
    from cong.training.callbacks import Curves, TimedCheckpoints

    shape = checkpoints.execution_shape(job.resources)
    return [
        Curves(metrics=job.metrics, progress=job.progress),
        TimedCheckpoints(seconds=job.resources.training.checkpoint_seconds, shape=shape),
    ]


def prepare_layers(trainer: Any, resources: Resources) -> None:
    """Set how the layers of a trainer's model run: on a GPU without copies of all weights in half precision."""
    if resources.hardware.device == "cuda":
        from accelerate.utils import AutocastKwargs

        # A checkpointed layer uses its weights once per pass: copies of them would only be kept for nothing.
        trainer.accelerator.autocast_handler = AutocastKwargs(cache_enabled=False)
    if resources.training.compile:
        from transformers.modeling_layers import GradientCheckpointingLayer

        for layer in trainer.model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.compile(dynamic=True)


def _silence(trainer: Any) -> None:
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def _resume(job: Job, trainer: Any) -> Path | None:
    shape = checkpoints.execution_shape(job.resources)
    with trainer.args.main_process_first(local=False):
        if trainer.is_world_process_zero():
            checkpoints.discard_unusable(job.checkpoints, shape=shape)
        resumed = checkpoints.last_complete(job.checkpoints, shape=shape)
        if trainer.is_world_process_zero():
            truncate_metrics(job.metrics, last_step=checkpoints.step_of(resumed))
    if resumed:
        _restore_token_count(trainer, resumed)
    return resumed


def _restore_token_count(trainer: Any, checkpoint: Path) -> None:
    """Continue the curve of the tokens seen, which TRL counts from the start of the process."""
    points = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]
    counts = [point["num_tokens"] for point in points if "num_tokens" in point]
    if counts:
        assert hasattr(trainer, "_total_train_tokens"), "TRL counts tokens elsewhere now"
        trainer._total_train_tokens = int(counts[-1])


def _write_result(job: Job, trainer: Any, dataset: Any, *, first_step: int, seconds: float) -> None:
    losses = [point["loss"] for point in trainer.state.log_history if "loss" in point]
    counts = dataset["tokens"][:]
    tokens = sum(counts[first_step * job.schedule.global_batch_size :])
    result = {
        **job.counts,
        "tokens": sum(counts),
        "train_loss": losses[-1],
        "steps": trainer.state.global_step,
        "resumed_at_step": first_step,
        "train_seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
    }
    replace_text(job.result, json.dumps(result, indent=1) + "\n")
