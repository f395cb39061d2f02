"""Simple preference optimization (Meng et al., 2024, Eq. 6): a preference baseline without a reference.

    SimPO(model=strong, data=pairs, beta=2.0, gamma=1.0, learning_rate=6e-7)

The reward is the mean log-probability of a response's tokens, so that length earns nothing:

    L = -log sigmoid(beta/|chosen| log pi(chosen) - beta/|rejected| log pi(rejected) - gamma)
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cong.data import PAIRS, read_rows
from cong.graph.stage import Context
from cong.training.finetune import Finetune
from cong.training.job import TrainerFactory
from cong.training.orpo import pair_trainer
from cong.training.rows import TokenRows, preference_rows

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class SimPO(Finetune):
    """Minimizes -E[log sigmoid(beta (mean log pi(chosen) - mean log pi(rejected)) - gamma)]."""

    SEQUENCES = 2
    beta: float
    gamma: float
    """Margin that the rewards should have: the paper's gamma, not its ratio to beta."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise ValueError(f"beta = {self.beta} is not above 0")
        if not self.gamma >= 0:
            raise ValueError(f"gamma = {self.gamma} is below 0")

    def label(self) -> str:
        return f"beta={self.beta:g},gamma={self.gamma:g},lr={self.learning_rate:g}{self.adapted}"

    def token_rows(self, ctx: Context, tokenizer: Any) -> TokenRows:
        return preference_rows(tokenizer, read_rows(ctx.path(self.data) / PAIRS), max_length=self.max_length)

    def trainer_factory(self) -> TrainerFactory:
        loss = partial(simpo_loss, beta=self.beta, gamma=self.gamma)
        return partial(pair_trainer, loss=loss, likelihood=False, max_length=self.max_length)


def simpo_loss(*, chosen: "torch.Tensor", rejected: "torch.Tensor", beta: float, gamma: float) -> "torch.Tensor":
    """Return the loss of each pair from the mean log-probabilities of the responses' tokens."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (chosen - rejected) - gamma)
