"""What happens beside the steps of a training: live curves, progress, checkpoints by the clock."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cong.graph.journal import append_metrics, write_progress
from cong.training.checkpoints import mark_complete


class Curves(TrainerCallback):
    """Rank 0 appends every logged point to the stage's metrics and writes the progress about once a second."""

    def __init__(self, *, metrics: Path, progress: Path) -> None:
        self._metrics = metrics
        self._progress = progress
        self._written = 0.0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        _refuse_divergence(logs or {}, step=state.global_step)
        if logs and "loss" in logs and state.is_world_process_zero:
            numbers = {name: float(value) for name, value in logs.items() if name != "epoch"}
            append_metrics(self._metrics, state.global_step, **numbers)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        last = state.global_step == state.max_steps
        if state.is_world_process_zero and (last or time.monotonic() - self._written > 1.0):
            write_progress(self._progress, done=state.global_step, total=state.max_steps, unit="steps")
            self._written = time.monotonic()


def _refuse_divergence(logs: dict[str, Any], *, step: int) -> None:
    """Raise where a loss or the norm of a gradient is no number: the step that follows would make weights of it."""
    for name in ("loss", "grad_norm", "train_loss"):
        if not math.isfinite(logs.get(name, 0.0)):
            raise FloatingPointError(f"the {name} is {logs[name]} at step {step}: the training diverged")


class TimedCheckpoints(TrainerCallback):
    """Saves when `seconds` have passed on rank 0's clock; all ranks save together, as a sharded state demands."""

    def __init__(self, *, seconds: float, shape: str) -> None:
        self._seconds = seconds
        self._shape = shape
        self._last = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Only where a point of the curve is complete, so that a resumed curve is the same; the end saves the model.
        if state.global_step % int(args.logging_steps) or state.global_step == state.max_steps:
            return
        if self._agreed(time.monotonic() - self._last >= self._seconds, args):
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:
            torch.distributed.barrier()  # Every rank's part is written now.
        if state.is_world_process_zero:
            mark_complete(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}", shape=self._shape)
        self._last = time.monotonic()

    def _agreed(self, due: bool, args: TrainingArguments) -> bool:
        if args.world_size == 1:
            return due
        decision = torch.tensor(int(due), device=args.device)
        torch.distributed.broadcast(decision, src=0)
        return bool(decision.item())
