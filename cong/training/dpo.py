"""Direct preference optimization: weak alignment (Eq. 5) and Stage II of ConG (Eq. 12).

    DPO(model=student, data=pairs, beta=0.5, learning_rate=6e-7)

The reference policy is the initial model. Its log-probabilities are a stage of their own, which every beta and learning
rate over the same pairs shares.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cong.data import PAIRS, by_prompt, read_rows
from cong.graph.stage import Context
from cong.training.finetune import Finetune
from cong.training.job import TrainerFactory
from cong.training.reference import REFERENCE, ReferenceLogprobs
from cong.training.rows import TokenRows, preference_rows


@dataclass(frozen=True, kw_only=True)
class DPO(Finetune):
    """Minimizes -E[log sigmoid(beta (log pi_theta/pi_ref(chosen) - log pi_theta/pi_ref(rejected)))]."""

    SEQUENCES = 2
    beta: float
    reference: ReferenceLogprobs = field(init=False)
    """Derived from model, data and max_length; a field, so that the graph sees it as an input."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise ValueError(f"beta = {self.beta} is not above 0")
        reference = ReferenceLogprobs(model=self.model, data=self.data, max_length=self.max_length)
        object.__setattr__(self, "reference", reference)

    def label(self) -> str:
        return f"beta={self.beta:g},lr={self.learning_rate:g}{self.adapted}"

    def token_rows(self, ctx: Context, tokenizer: Any) -> TokenRows:
        rows = preference_rows(tokenizer, read_rows(ctx.path(self.data) / PAIRS), max_length=self.max_length)
        reference = by_prompt(read_rows(ctx.path(self.reference) / REFERENCE))
        found = [reference[prompt_id] for prompt_id in rows.columns.pop("prompt_id")]
        rows.columns["ref_chosen_logps"] = [row["ref_chosen_logp"] for row in found]
        rows.columns["ref_rejected_logps"] = [row["ref_rejected_logp"] for row in found]
        return rows

    def trainer_factory(self) -> TrainerFactory:
        return partial(preference_trainer, beta=self.beta, max_length=self.max_length)


def preference_trainer(*, settings: dict[str, Any], parts: dict[str, Any], beta: float, max_length: int) -> Any:
    """Return TRL's trainer for pairs that carry their reference log-probabilities."""
    from trl.trainer.dpo_config import DPOConfig

    from cong.training.trainers import CachedReferenceTrainer

    # All dropout but that of an adapter is off during training, whoever sets it (`cong.training.dropout`).
    own: dict[str, Any] = {"precompute_ref_log_probs": True, "disable_dropout": False}
    config = DPOConfig(**settings, **own, beta=beta, max_length=max_length)
    return CachedReferenceTrainer(args=config, **parts)
