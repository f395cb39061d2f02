"""Runs a function in this process, or in Ray Train workers, whichever the profile asks for.

One plain worker needs no other process: starting Ray Train takes longer than a small training. The function is the same
either way. Ray Train starts the workers again when one is lost; the function then continues from what it left on disk.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cong.graph.cluster import this_node
from cong.graph.environment import GROUP, stage_environment
from cong.graph.resources import Resources

MAX_FAILURES = 3


def launch(function: Callable[[Any], None], job: Any, *, resources: Resources, scratch: Path) -> None:
    """Call `function(job)` on every worker and wait; `scratch` is a directory that all nodes share."""
    if not resources.training.distributed:
        function(job)
        return
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        _for_worker(function, further=(*GROUP, *resources.cluster.let_through)),
        train_loop_config=job,
        scaling_config=_scaling(resources),
        run_config=_run_config(resources, scratch),
        torch_config=TorchConfig(backend="nccl" if resources.hardware.device == "cuda" else "gloo"),
    )
    trainer.fit()
    shutil.rmtree(scratch, ignore_errors=True)


def _for_worker(function: Callable[[Any], None], *, further: tuple[str, ...]) -> Callable[[Any], None]:
    """Return the function as it is called in a worker, whose node may have been started from any shell."""

    def call(job: Any) -> None:
        with stage_environment(further=further):
            function(job)

    return call


def _scaling(resources: Resources) -> Any:
    from ray.train import ScalingConfig

    per_worker: dict[str, float] = {"CPU": resources.hardware.threads}
    if resources.hardware.gpus_per_process:
        per_worker["GPU"] = resources.hardware.gpus_per_process
    if resources.cluster.one_node:
        per_worker |= this_node()
    return ScalingConfig(
        num_workers=resources.training.workers,
        use_gpu=resources.hardware.device == "cuda",
        resources_per_worker=per_worker,
    )


def _run_config(resources: Resources, scratch: Path) -> Any:
    from ray.train import FailureConfig, RunConfig
    from ray.train.v2.api.config import LoggingConfig

    environment = {
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    if resources.hardware.device == "cpu":
        environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(resources.hardware.threads)}
    return RunConfig(
        # Ray Train would take up a run of the same name, and with it the workers' earlier failures.
        name=f"train-{time.time_ns()}",
        storage_path=str(scratch),
        failure_config=FailureConfig(max_failures=MAX_FAILURES),
        worker_runtime_env={"env_vars": environment},
        logging_config=LoggingConfig(log_level="WARNING"),
    )
