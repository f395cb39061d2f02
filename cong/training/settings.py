"""Training arguments that follow from a stage's fields and from the resources it was given."""

import math
from typing import Any

from cong.graph.resources import Resources
from cong.training.job import Job

_POINTS = 200
"""About as many points has a live curve, at least."""


def arguments(job: Job, *, steps: int, accumulation: int) -> dict[str, Any]:
    """Return the settings that all of TRL's trainers share, for steps of so many micro-batches of each worker."""
    schedule = job.schedule
    return {
        "output_dir": str(job.checkpoints),
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": schedule.scheduler,
        "warmup_steps": warmup_steps(steps=steps, ratio=schedule.warmup_ratio),
        "weight_decay": schedule.weight_decay,
        "max_grad_norm": 1.0,
        "seed": schedule.seed,
        # The order of all epochs is laid down in the dataset itself.
        "num_train_epochs": 1,
        # A micro-batch is one block of rows.
        "per_device_train_batch_size": 1,
        "remove_unused_columns": False,
        "train_sampling_strategy": "sequential",
        "gradient_accumulation_steps": accumulation,
        "logging_steps": max(1, steps // _POINTS),
        "logging_first_step": True,
        # A loss that is not a number ends the training; the default would log the mean of the steps before instead.
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **_execution(job.resources),
        "gradient_checkpointing": job.resources.hardware.device == "cuda" or job.checkpointing,
    }


def warmup_steps(*, steps: int, ratio: float) -> int:
    """Return in how many of the optimizer steps the learning rate rises from 0, at most all but the last.

    The first of them has a learning rate of 0: a training of one step has no warm-up, or it would change nothing.
    """
    return min(math.ceil(steps * ratio), steps - 1)


def weights_dtype(resources: Resources) -> str:
    """Return the dtype that weights are loaded in: DeepSpeed keeps its own float32 copy, a plain trainer has none."""
    return "float32" if resources.training.deepspeed == "none" else resources.hardware.dtype


def _execution(resources: Resources) -> dict[str, Any]:
    on_cpu = resources.hardware.device == "cpu"
    return {
        "use_cpu": on_cpu,
        "bf16": resources.hardware.dtype == "bfloat16",
        # DeepSpeed's own Adam for the CPU is compiled for a minute; PyTorch's serves unless states are offloaded. On a
        # GPU the fused one needs no temporaries as large as the weights.
        "optim": "adamw_torch" if on_cpu else "adamw_torch_fused",
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": not on_cpu,
        "model_init_kwargs": {"device_map": None, "dtype": weights_dtype(resources)},
        "deepspeed": deepspeed_config(resources),
    }


def deepspeed_config(resources: Resources) -> dict[str, Any] | None:
    """Return DeepSpeed's configuration for the profile, None without DeepSpeed."""
    if resources.training.deepspeed == "none":
        return None
    zero: dict[str, Any] = {"stage": 2 if resources.training.deepspeed == "zero2" else 3}
    if zero["stage"] == 3:
        # The saved model is then an ordinary checkpoint, gathered from all workers.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    config = {
        "zero_optimization": zero,
        "bf16": {"enabled": resources.hardware.dtype == "bfloat16"},
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
    }
    if resources.training.deepspeed == "zero3-offload":
        config |= _offload(zero, resources)
    return config


def _offload(zero: dict[str, Any], resources: Resources) -> dict[str, Any]:
    on_gpu = resources.hardware.device == "cuda"
    zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    zero["offload_param"] = {"device": "cpu", "pin_memory": on_gpu}
    if not on_gpu:
        return {"zero_force_ds_cpu_optimizer": False}
    auto = {name: "auto" for name in ("lr", "betas", "eps", "weight_decay")}
    return {"optimizer": {"type": "AdamW", "params": auto}}
