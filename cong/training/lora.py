"""LoRA (Hu et al., 2022): linear layers become W + (alpha / rank) B A, of which B and A are trained and kept.

    SFT(model=strong, data=responses, learning_rate=2e-4, lora=LoRA(rank=16, alpha=32))

Whoever reads such a stage gets whole weights, merged on the fly (`cong.models.adapters`); a weak pair that is a base
and its adapter decodes on one set of base weights. The reference policy of DPO is the base, that is, the model with
the adapter switched off.
"""

from dataclasses import dataclass
from typing import Any, Literal

from cong.models.architecture import Architecture

ALL_LINEAR = "all-linear"


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """What is trained in place of all weights."""

    rank: int = 16
    """Of B and A."""
    alpha: float = 32.0
    """B A is multiplied by alpha / rank."""
    targets: tuple[str, ...] | Literal["all-linear"] = ALL_LINEAR
    """Names of the linear layers, such as ("q_proj", "v_proj"); by default all but the output embeddings."""
    dropout: float = 0.0
    """Of the inputs of A. Above 0 the curve depends on micro-batch and workers too, as all random masks do."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank = {self.rank} is below 1")
        if not self.alpha > 0:
            raise ValueError(f"alpha = {self.alpha} is not above 0")
        if not self.targets or (isinstance(self.targets, str) and self.targets != ALL_LINEAR):
            raise ValueError(f"targets = {self.targets!r} is neither 'all-linear' nor a tuple of names")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout} is not in [0, 1)")

    def __str__(self) -> str:
        return f"rank={self.rank}"

    def config(self) -> Any:
        """Return peft's configuration."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            # A whole number stays one, as in the files that peft itself writes.
            lora_alpha=int(self.alpha) if float(self.alpha).is_integer() else self.alpha,  # pyright: ignore
            target_modules=self.targets if isinstance(self.targets, str) else list(self.targets),
            lora_dropout=self.dropout,
            task_type="CAUSAL_LM",
        )

    def parameters(self, model: Architecture) -> int:
        """Return how many parameters are trained; those of targets with unknown names are not counted."""
        attention, cached = model.heads * model.head_width, model.kv_heads * model.head_width
        sides = {"q_proj": model.width + attention, "k_proj": model.width + cached, "v_proj": model.width + cached,
                 "o_proj": attention + model.width, "gate_proj": model.width + model.inner,
                 "up_proj": model.width + model.inner, "down_proj": model.inner + model.width}  # fmt: skip
        trained = sides if self.targets == ALL_LINEAR else {name: sides.get(name, 0) for name in self.targets}
        return model.layers * self.rank * sum(trained.values())
