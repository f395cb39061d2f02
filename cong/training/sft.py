"""Supervised fine-tuning on responses: Stage I of ConG, and the weak-to-strong baselines.

SFT(model=strong, data=ContrastiveGenerate(...), learning_rate=1e-5, epochs=2)
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from cong.data import RESPONSES, read_rows
from cong.graph.stage import Context
from cong.training.finetune import Finetune
from cong.training.job import TrainerFactory
from cong.training.rows import TokenRows, completion_rows


@dataclass(frozen=True, kw_only=True)
class SFT(Finetune):
    """Minimizes -E[log pi_theta(y | x)] over the responses y of `data` (Eq. 11), averaged over response tokens."""

    def label(self) -> str:
        return f"lr={self.learning_rate:g}{self.adapted}"

    def token_rows(self, ctx: Context, tokenizer: Any) -> TokenRows:
        rows = read_rows(ctx.path(self.data) / RESPONSES)
        return completion_rows(tokenizer, rows, max_length=self.max_length)

    def trainer_factory(self) -> TrainerFactory:
        return partial(completion_trainer, max_length=self.max_length)


def completion_trainer(*, settings: dict[str, Any], parts: dict[str, Any], max_length: int) -> Any:
    """Return TRL's trainer for rows with labels."""
    from trl.trainer.sft_config import SFTConfig

    from cong.training.trainers import CompletionTrainer

    config = SFTConfig(**settings, dataset_kwargs={"skip_prepare_dataset": True}, max_length=max_length)
    return CompletionTrainer(args=config, **parts)
