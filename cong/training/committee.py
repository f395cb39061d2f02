"""The trainer of a student and of the weights of the members that label its pairs (RAVEN)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.dpo_trainer import DataCollatorForPreference

from cong.data import MARGINS
from cong.graph.journal import replace_text
from cong.training.blocks import BlockCollator
from cong.training.raven import easy_loss, moved, raven_loss
from cong.training.trainers import CachedReferenceTrainer, note, refuse_experts, token_logps

NAME = "weights/{}"
"""Of a member's weight in a point of the curve, counted from 1."""


@dataclass
class CommitteeCollator(DataCollatorForPreference):
    """Adds the margins of the pairs (N x M)."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        margins = torch.tensor([example[MARGINS] for example in examples])
        return super().torch_call(examples) | {MARGINS: margins}


class CommitteeTrainer(CachedReferenceTrainer):
    """The easy loss for a share of the steps, then RAVEN's, whose gradient moves the members' weights too."""

    loss_is_scaled_for_ga = False

    def __init__(self, *, rate: float, easy: float, weights: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        refuse_experts(self)
        # The trainer's own collator in all else: padding and the cut are those of plain DPO.
        self.data_collator = BlockCollator(CommitteeCollator(**vars(self.data_collator.collate)))
        self._easy = easy
        members = len(self.train_dataset.rows[0][MARGINS])
        # In double precision: a curve holds the numbers that a resumed training continues with.
        self.committee = torch.full((members,), 1 / members, dtype=torch.float64)
        # Sum of the gradients of the step's pairs, and their number.
        self._gathered = torch.zeros(members + 1, dtype=torch.float64)
        self._rate = rate
        self.add_callback(_Members(self, weights))

    @property
    def is_easy(self) -> bool:
        """Whether the step that is being computed belongs to the easy phase."""
        return self.state.global_step < round(self._easy * self.state.max_steps)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        logps = token_logps(model, inputs, scored=inputs["completion_mask"].bool()).sum(dim=1)
        chosen, rejected = logps.chunk(2)
        ratios = (chosen - inputs["ref_chosen_logps"]) - (rejected - inputs["ref_rejected_logps"])
        note(self, **{"logps/chosen": chosen, "logps/rejected": rejected, "rewards/margins": self.beta * ratios})
        given = {"ratios": ratios, "margins": inputs[MARGINS], "beta": self.beta}
        if self.is_easy:
            return easy_loss(**given).mean() * self.share_of(len(chosen))
        weights = self.committee.to(ratios).requires_grad_()
        self._gather(given | {"ratios": ratios.detach()}, weights)
        return raven_loss(**given, weights=weights.detach()).mean() * self.share_of(len(chosen))

    def _gather(self, given: Mapping[str, Any], weights: torch.Tensor) -> None:
        (gradient,) = torch.autograd.grad(raven_loss(**given, weights=weights).sum(), weights)
        count = torch.tensor([float(len(given["ratios"]))])
        self._gathered += torch.cat([gradient.cpu().double(), count.double()])

    def move(self) -> None:
        """Move the weights by the mean gradient of the step's pairs, those of all workers together."""
        everywhere: Any = self.accelerator.reduce(self._gathered.to(self.accelerator.device), reduction="sum")
        *gradient, count = everywhere.tolist()
        self._gathered.zero_()
        if count:
            mean = torch.tensor(gradient, dtype=torch.float64) / count
            self.committee = moved(self.committee, gradient=mean, rate=self._rate)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        named = {NAME.format(number): weight for number, weight in enumerate(self.committee.tolist(), start=1)}
        super().log(logs | named, start_time)


class _Members(TrainerCallback):
    """Moves the weights after a step, and continues with those of the checkpoint's last point of the curve."""

    def __init__(self, trainer: CommitteeTrainer, path: Path) -> None:
        self._trainer = trainer
        self._path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step:
            names = [NAME.format(number + 1) for number in range(len(self._trainer.committee))]
            point = next(point for point in reversed(state.log_history) if names[0] in point)
            assert point["step"] == state.global_step, "a checkpoint is made where a point of the curve is complete"
            self._trainer.committee = torch.tensor([point[name] for name in names], dtype=torch.float64)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._trainer.move()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            replace_text(self._path, json.dumps(self._trainer.committee.tolist()))
