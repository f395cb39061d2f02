"""A training job: everything that a training process is told, and what it leaves behind."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cong.graph.resources import Resources

if TYPE_CHECKING:
    from cong.training.finetune import Finetune


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train, from which checkpoint, where, and how it is executed."""

    stage: "Finetune"
    model: Path
    """Directory of the initial checkpoint."""
    out: Path
    metrics: Path
    progress: Path
    resources: Resources

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
