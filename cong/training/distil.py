"""Distillation on given texts, mostly the student's own: KL(pi_theta || q) at every token, q a frozen teacher.

    teacher = TopLogprobs(model=strong, post=weak_aligned, pre=weak, data=rollouts, max_length=2048)
    student = Distil(model=strong, data=rollouts, teacher=teacher, learning_rate=2e-6)

Of the teacher the K likeliest tokens are kept, and what all others have together. With p the student's probabilities
and the rest of either as one more token, the loss at a response token is

    L_t = sum_{y in top K} p(y) log(p(y) / q(y)) + p(rest) log(p(rest) / q(rest))

averaged over the response tokens. It is a divergence, 0 where both distributions agree on K + 1 events, and with K the
vocabulary KL(pi_theta || q) itself. Without the rest it would be none: a student could lower it by moving probability
out of the teacher's top K.

On the student's own rollouts this is on-policy distillation (Agarwal et al., 2024, arXiv:2306.13649), but only until
the first optimizer step: rollouts are those of the model that a training begins with, and off-policy after that. More
rounds of fewer prompts are nearer to it.

TRL's DistillationTrainer computes the same divergence with a live teacher of one model that it holds beside the
student; a teacher of three models that is read once, and a training that resumes, need this stage.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cong.data import RESPONSES, read_rows
from cong.errors import UserError
from cong.graph.stage import Context
from cong.models import check_same_tokenizer, describe
from cong.training.finetune import Finetune
from cong.training.job import TrainerFactory
from cong.training.reference import pad_token
from cong.training.rows import TokenRows, completion_rows
from cong.training.toplogprobs import TOPS, TopLogprobs, parted_logprobs, read_tops, with_tops
from cong.training.wspo import KEY

if TYPE_CHECKING:
    import torch

LEAST_REST = -30.0
"""The log-probability in nats of what a teacher gives to no token."""


@dataclass(frozen=True, kw_only=True)
class Distil(Finetune):
    """Minimizes KL(pi_theta || q) over the teacher's top tokens and their rest, averaged over response tokens."""

    WHOLE_LOGITS = True
    teacher: TopLogprobs
    """q, read on the same `data` with the same `max_length`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher.data != self.data:
            raise ValueError(f"the teacher was read on {self.teacher.data.title}, and not on {self.data.title}")
        if self.teacher.max_length != self.max_length:
            raise ValueError(f"max_length = {self.max_length}, and the teacher's is {self.teacher.max_length}")

    def label(self) -> str:
        return f"{self.teacher.label()},lr={self.learning_rate:g}{self.adapted}"

    def check(self) -> None:
        super().check()
        try:
            check_same_tokenizer(self.model, self.teacher.model)
        except UserError as error:
            raise UserError(
                f"distillation compares distributions token by token, and {describe(self.teacher.model)} and "
                f"{describe(self.model)} have two tokenizers"
            ) from error

    def token_rows(self, ctx: Context, tokenizer: Any) -> TokenRows:
        given = read_rows(ctx.path(self.data) / RESPONSES)
        rows = completion_rows(tokenizer, given, max_length=self.max_length, keep=KEY)
        return with_tops(rows, read_tops(ctx.path(self.teacher) / TOPS), teacher=describe(self.teacher.model))

    def trainer_factory(self) -> TrainerFactory:
        return partial(distilling_trainer, max_length=self.max_length)


def distillation_loss(
    *, logits: "torch.Tensor", top_ids: "torch.Tensor", top_logps: "torch.Tensor", tail_logps: "torch.Tensor"
) -> "torch.Tensor":
    """Return the loss of each token from the student's logits (N x V), and the teacher's tops (N x K) and rest (N)."""
    own, rest = parted_logprobs(logits, top_ids)
    inside = (own.exp() * (own - top_logps)).sum(dim=-1)
    if top_ids.shape[-1] == logits.shape[-1]:
        return inside
    return inside + rest.exp() * (rest - tail_logps.clamp_min(LEAST_REST))


def distilling_trainer(*, settings: dict[str, Any], parts: dict[str, Any], max_length: int) -> Any:
    """Return the trainer for rows that carry what the teacher says of them."""
    from trl.trainer.sft_config import SFTConfig

    from cong.training.distilling import DistillingTrainer, TopCollator

    config = SFTConfig(**settings, dataset_kwargs={"skip_prepare_dataset": True}, max_length=max_length)
    collator = TopCollator(pad_token_id=pad_token(parts["processing_class"]))
    return DistillingTrainer(args=config, data_collator=collator, loss=distillation_loss, **parts)
