"""Direct preference optimization: weak alignment (Eq. 5) and Stage II of ConG (Eq. 12).

    DPO(model=student, data=pairs, beta=0.5, learning_rate=6e-7)

The reference policy is the initial model. Its log-probabilities are a stage of their own, which every beta and learning
rate over the same pairs shares. With `weighted=True` the loss of every pair is multiplied by its column `weight`, as in
confidence-weighted preference optimization (CW-PO, arXiv:2603.04968); `cong.scoring.WeighedPairs` writes it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from cong.data import PAIRS, WEIGHT, Row, by_prompt, read_rows
from cong.errors import UserError
from cong.graph.fingerprint import LATER
from cong.graph.stage import Context
from cong.training.finetune import Finetune
from cong.training.job import TrainerFactory
from cong.training.reference import REFERENCE, ReferenceLogprobs
from cong.training.rows import TokenRows, preference_rows

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class DPO(Finetune):
    """Minimizes -E[log sigmoid(beta (log pi_theta/pi_ref(chosen) - log pi_theta/pi_ref(rejected)))].

    With `weighted`, it is the mean over the pairs of weight times loss; weights are not normalized. Weights of 1 are
    plain DPO, and equal weights scale its gradient alone.
    """

    SEQUENCES = 2
    beta: float
    reference: ReferenceLogprobs = field(init=False)
    """Derived from model, data and max_length; a field, so that the graph sees it as an input."""
    weighted: bool = field(default=False, metadata=LATER)
    """Whether the loss of a pair is multiplied by its column `weight`, which is then needed, and not below 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise ValueError(f"beta = {self.beta} is not above 0")
        reference = ReferenceLogprobs(model=self.model, data=self.data, max_length=self.max_length)
        object.__setattr__(self, "reference", reference)

    def label(self) -> str:
        return f"beta={self.beta:g},lr={self.learning_rate:g}{',weighted' if self.weighted else ''}{self.adapted}"

    def token_rows(self, ctx: Context, tokenizer: Any) -> TokenRows:
        pairs = read_rows(ctx.path(self.data) / PAIRS)
        rows = preference_rows(tokenizer, pairs, max_length=self.max_length)
        reference = by_prompt(read_rows(ctx.path(self.reference) / REFERENCE))
        prompt_ids = rows.columns.pop("prompt_id")
        found = [reference[prompt_id] for prompt_id in prompt_ids]
        rows.columns["ref_chosen_logps"] = [row["ref_chosen_logp"] for row in found]
        rows.columns["ref_rejected_logps"] = [row["ref_rejected_logp"] for row in found]
        for name, values in self.further_columns(pairs).items():
            rows.columns[name] = [values[prompt_id] for prompt_id in prompt_ids]
        return rows

    def further_columns(self, pairs: Sequence[Row]) -> dict[str, dict[str, Any]]:
        """Return by name and prompt what else of a pair the loss needs."""
        return {WEIGHT: _weights(pairs, source=self.data.title)} if self.weighted else {}

    def trainer_factory(self) -> TrainerFactory:
        if self.weighted:
            return partial(weighted_trainer, beta=self.beta, max_length=self.max_length)
        return partial(preference_trainer, beta=self.beta, max_length=self.max_length)


def dpo_loss(*, chosen: "torch.Tensor", rejected: "torch.Tensor", beta: float) -> "torch.Tensor":
    """Return the loss of each pair from its log-ratios, log pi_theta - log pi_ref of a response (Eq. 5)."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (chosen - rejected))


def _weights(pairs: Sequence[Row], *, source: str) -> dict[str, float]:
    """Return the weights by prompt; raise `UserError` for a pair without one, or with one that no loss can have."""
    for row in pairs:
        weight = row.get(WEIGHT)
        if weight is None:
            raise UserError(f"weighted=True, and the pair of {row['prompt_id']} in {source} has no column {WEIGHT!r}")
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"{source}: the weight of {row['prompt_id']} is {weight}, and not a number of at least 0")
    return {row["prompt_id"]: float(row[WEIGHT]) for row in pairs}


def preference_trainer(*, settings: dict[str, Any], parts: dict[str, Any], beta: float, max_length: int) -> Any:
    """Return TRL's trainer for pairs that carry their reference log-probabilities."""
    from cong.training.trainers import CachedReferenceTrainer

    return CachedReferenceTrainer(args=preference_config(settings, beta=beta, max_length=max_length), **parts)


def weighted_trainer(*, settings: dict[str, Any], parts: dict[str, Any], beta: float, max_length: int) -> Any:
    """Return the trainer for pairs that carry a weight too."""
    from cong.training.trainers import WeightedTrainer

    config = preference_config(settings, beta=beta, max_length=max_length)
    return WeightedTrainer(args=config, loss=partial(dpo_loss, beta=beta), **parts)


def preference_config(settings: dict[str, Any], **own: Any) -> Any:
    from trl.trainer.dpo_config import DPOConfig

    # All dropout but that of an adapter is off during training, whoever sets it (`cong.training.dropout`).
    return DPOConfig(**settings, **own, precompute_ref_log_probs=True, disable_dropout=False)
