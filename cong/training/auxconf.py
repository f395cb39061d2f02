"""Auxiliary confidence loss (Burns et al., 2024, Eq. 1): weak labels mixed with the strong model's own predictions.

    AuxConf(model=strong, data=responses, max_weight=0.5, learning_rate=1e-5)

For every response token, with w the weight at this step:

    L = (1 - w) CE(weak token) + w CE(argmax of the model's own logits)

The own prediction is hardened and carries no gradient. w rises linearly to `max_weight`, so that the model first learns
what is asked of it, and then may disagree with the weak labels. At a weight of 0 this is SFT.

It differs from Burns et al., whose task is classification. Their weak labels are soft, the supervisor's probabilities;
here they are hard, the tokens that it wrote. Their own predictions are hardened at a threshold that follows the batch,
so that both classes are predicted as often as the weak labels have them; a vocabulary has no such balance, and the own
prediction is the argmax. The weak term's weight is 1 - w in both.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cong.data import RESPONSES, read_rows
from cong.graph.stage import Context
from cong.training.finetune import Finetune
from cong.training.job import TrainerFactory
from cong.training.rows import TokenRows, completion_rows

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class AuxConf(Finetune):
    """Minimizes (1 - w) CE(weak token) + w CE(own hardened prediction), averaged over response tokens."""

    WHOLE_LOGITS = True
    max_weight: float = 0.5
    weight_warmup: float = 0.1
    """Share of the optimizer steps in which the weight rises from 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_weight", "weight_warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)} is not in [0, 1]")

    def label(self) -> str:
        return f"weight={self.max_weight:g},lr={self.learning_rate:g}{self.adapted}"

    def token_rows(self, ctx: Context, tokenizer: Any) -> TokenRows:
        rows = read_rows(ctx.path(self.data) / RESPONSES)
        return completion_rows(tokenizer, rows, max_length=self.max_length)

    def trainer_factory(self) -> TrainerFactory:
        weight = partial(auxiliary_weight, max_weight=self.max_weight, warmup=self.weight_warmup)
        return partial(confidence_trainer, weight=weight, max_length=self.max_length)


def auxiliary_weight(*, step: int, steps: int, max_weight: float, warmup: float) -> float:
    """Return the weight after `step` of `steps` optimizer steps."""
    rising = warmup * steps
    return max_weight if step >= rising else max_weight * step / rising


def confidence_loss(*, logits: "torch.Tensor", labels: "torch.Tensor", weight: float) -> "torch.Tensor":
    """Return the loss of each token from logits (tokens x vocabulary) and weak labels (tokens)."""
    logps = logits.log_softmax(dim=-1)
    weak = -logps.gather(-1, labels[:, None]).squeeze(-1)
    # Which token is largest has no gradient; the cross-entropy with it has.
    own = -logps.max(dim=-1).values
    return (1 - weight) * weak + weight * own


def confidence_trainer(*, settings: dict[str, Any], parts: dict[str, Any], weight: Any, max_length: int) -> Any:
    """Return the trainer of the mixed loss."""
    from trl.trainer.sft_config import SFTConfig

    from cong.training.trainers import ConfidenceTrainer

    config = SFTConfig(**settings, dataset_kwargs={"skip_prepare_dataset": True}, max_length=max_length)
    return ConfidenceTrainer(args=config, loss=confidence_loss, weight=weight, **parts)
