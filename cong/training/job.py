"""A training job: everything that a training process is given, and what it leaves behind.

It holds no stage: a worker on another node need not be able to import the experiment that declared the graph.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cong.graph.resources import Resources
from cong.training.lora import LoRA

TrainerFactory = Callable[..., Any]
"""Called with `settings` (of TRL's configuration class) and `parts` (of its trainer); it must be picklable."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Which rows form an optimizer step, and the size of the step."""

    learning_rate: float
    epochs: int
    global_batch_size: int
    scheduler: str
    warmup_ratio: float
    weight_decay: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train, from which checkpoint, where, and how it is executed."""

    schedule: Schedule
    trainer_factory: TrainerFactory
    model: Path
    """Directory of the initial checkpoint."""
    out: Path
    metrics: Path
    progress: Path
    resources: Resources
    lora: LoRA | None = None
    """What is trained in place of all weights."""
    base: str = ""
    """Name of the initial model for a reader."""
    counts: dict[str, int] = field(default_factory=dict)
    """Rows used and left out: they go into the result."""

    @property
    def tokens(self) -> Path:
        """Arrow file of the tokenized rows, on storage that all workers share."""
        return self.out / ".tokens.arrow"

    @property
    def checkpoints(self) -> Path:
        """Directory of the checkpoints; it is deleted when the model is there."""
        return self.out / "checkpoints"

    @property
    def trained(self) -> Path:
        """Directory of the trained model."""
        return self.out / "model"

    @property
    def result(self) -> Path:
        """Final numbers as JSON, written when the model is complete."""
        return self.out / "training.json"
