"""The trainer of a student that learns a teacher's distribution at every token of given responses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from cong.training.trainers import CompletionTrainer, note, refuse_experts, response_logits

TEACHER = {"top_ids": torch.long, "top_logps": torch.float32, "tail_logps": torch.float32}
"""Columns of the rows that come from the teacher."""


@dataclass
class TopCollator(DataCollatorForLanguageModeling):
    """Adds what the teacher says of the response tokens of all rows, one behind the other: K tokens and their rest."""

    def torch_call(self, examples: list[Any]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        count = int((batch["labels"][:, 1:] != -100).sum())
        for name, dtype in TEACHER.items():
            values = torch.cat([torch.as_tensor(example[name], dtype=dtype) for example in examples])
            batch[name] = values if name == "tail_logps" else values.view(count, -1)
        return batch


class DistillingTrainer(CompletionTrainer):
    """A loss of the student's logits and the teacher's tops, averaged over the response tokens of a step."""

    def __init__(self, *, loss: Callable[..., torch.Tensor], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        refuse_experts(self)
        self._token_loss = loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        assert num_items_in_batch is not None, "the trainer no longer counts the tokens of a step"
        logits, _ = response_logits(model, inputs, policy=self.model)
        teacher = {name: inputs[name] for name in TEACHER}
        losses = self._token_loss(logits=logits, **teacher)
        agreement = logits.argmax(dim=-1) == teacher["top_ids"][:, 0]
        note(self, teacher_agreement=agreement, teacher_top_mass=teacher["top_logps"].exp().sum(dim=-1))
        # As in SFT: the count is that of all workers, over which gradients are averaged.
        return losses.sum() / num_items_in_batch * self.accelerator.num_processes
