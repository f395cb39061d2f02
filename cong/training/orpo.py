"""Odds ratio preference optimization (Hong et al., 2024, Eq. 6 and 7): a preference baseline without a reference.

    ORPO(model=strong, data=pairs, weight=0.5, learning_rate=8e-6)

With p(y | x) the geometric mean of the probabilities of a response's tokens, and odds = p / (1 - p):

    L = NLL(chosen) - weight * log sigmoid(log odds(chosen) - log odds(rejected))

As in the paper and its authors' code, NLL is the mean over the tokens of the chosen response alone; TRL averages over
those of the prompt too. It is the mean of a whole optimizer step, since one of a micro-batch depends on how a step is
split.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cong.data import PAIRS, read_rows
from cong.graph.stage import Context
from cong.training.finetune import Finetune
from cong.training.job import TrainerFactory
from cong.training.rows import TokenRows, preference_rows

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ORPO(Finetune):
    """Minimizes the likelihood loss of the chosen response and the weighted odds ratio loss of the pair."""

    VERSION = 2
    SEQUENCES = 2
    weight: float
    """lambda of the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.weight >= 0:
            raise ValueError(f"weight = {self.weight} is below 0")

    def label(self) -> str:
        return f"weight={self.weight:g},lr={self.learning_rate:g}{self.adapted}"

    def token_rows(self, ctx: Context, tokenizer: Any) -> TokenRows:
        return preference_rows(tokenizer, read_rows(ctx.path(self.data) / PAIRS), max_length=self.max_length)

    def trainer_factory(self) -> TrainerFactory:
        loss = partial(odds_ratio_loss, weight=self.weight)
        return partial(pair_trainer, loss=loss, likelihood=True, max_length=self.max_length)


def odds_ratio_loss(*, chosen: "torch.Tensor", rejected: "torch.Tensor", weight: float) -> "torch.Tensor":
    """Return the second term of each pair from the mean log-probabilities of the responses' tokens."""
    from torch.nn.functional import logsigmoid

    log_odds = (chosen - _log_complement(chosen)) - (rejected - _log_complement(rejected))
    return -weight * logsigmoid(log_odds)


def _log_complement(logp: "torch.Tensor") -> "torch.Tensor":
    """Return log(1 - exp(logp)); a response that is all but certain keeps finite odds."""
    import torch

    below = logp.clamp(max=-1e-7)
    # Each form is exact where the other cancels; they meet at a probability of one half.
    return torch.where(below < -0.693147, torch.log1p(-torch.exp(below)), torch.log(-torch.expm1(below)))


def pair_trainer(*, settings: dict[str, Any], parts: dict[str, Any], max_length: int, **loss: Any) -> Any:
    """Return the trainer of a loss of pairs that needs no reference policy."""
    from trl.trainer.dpo_config import DPOConfig

    from cong.training.trainers import PairTrainer

    # "Precomputed" keeps TRL from loading a reference model; there is none.
    config = DPOConfig(**settings, precompute_ref_log_probs=True, disable_dropout=False, max_length=max_length)
    return PairTrainer(args=config, **loss, **parts)
