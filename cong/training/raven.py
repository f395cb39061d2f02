"""RAVEN on preferences (Jeon et al., 2025, arXiv:2510.21332): DPO under several weak members with learned weights.

    pairs = CommitteePairs(scored=tuple(Score(responses=candidates, judge=pair) for pair in weak_pairs))
    Raven(model=strong, data=pairs, beta=0.1, rate=0.01, easy=0.5, learning_rate=5e-6)

Of a pair i member m says d_im = p_m(chosen) - p_m(rejected) = 2 sigmoid(margin_im) - 1. With weights w on the simplex,
c_i = sum_m w_m d_im and h_i the student's log-ratio of chosen over rejected,

    L_i = -log sigmoid((beta + |c_i|) sign(c_i) h_i)

so that a pair is turned where the members together prefer its rejected response. Its gradient moves the student, and by
plain gradient descent with the learning rate `rate` the weights, which are clamped and normalized after each step: a
member gains weight where it agrees with what the student has learned so far. First comes an easy phase of `easy`
epochs: w uniform, beta alone, and only the pairs on which all members agree. So it is in the paper's classification;
its code for preferences counts the other pairs, and was not seen to leave them out.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.data import MARGINS, Row
from cong.errors import UserError
from cong.graph.stage import Context
from cong.training.dpo import DPO, preference_config
from cong.training.job import Job

if TYPE_CHECKING:
    import torch

WEIGHTS = "weights.json"
"""The members' final weights."""
LEAST_WEIGHT = 1e-6
"""What a weight is clamped to: a member can come back."""


@dataclass(frozen=True, kw_only=True)
class Raven(DPO):
    """Minimizes L over the student and over the members' weights; the results hold those as `weight_1`, `weight_2`, ...

    `data` are pairs with a column `margins`, such as `CommitteePairs`. Weights are updated once per optimizer step, by
    the gradient of the whole step: neither the micro-batch nor the number of workers changes them.
    """

    rate: float
    """Learning rate of the weights; with 0 they stay uniform."""
    easy: float = 0.5
    """Epochs of the easy phase."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.rate) and self.rate >= 0):
            raise ValueError(f"rate = {self.rate} is not a number of at least 0")
        if not 0 <= self.easy <= self.epochs:
            raise ValueError(f"easy = {self.easy} is not in [0, {self.epochs}], the epochs of the training")
        if self.weighted:
            raise ValueError("the members weigh the pairs: weighted is not for RAVEN")

    def label(self) -> str:
        return f"rate={self.rate:g},easy={self.easy:g},{super().label()}"

    def further_columns(self, pairs: Sequence[Row]) -> dict[str, dict[str, Any]]:
        counts = {len(row.get(MARGINS) or ()) for row in pairs}
        if len(counts) != 1 or counts == {0}:
            raise UserError(f"{self.data.title} holds no pairs with a margin per member in a column {MARGINS!r}")
        return {MARGINS: {row["prompt_id"]: row[MARGINS] for row in pairs}}

    def run(self, ctx: Context) -> None:
        super().run(ctx)
        weights = json.loads((ctx.out / WEIGHTS).read_text())
        ctx.summary(**{f"weight_{number}": weight for number, weight in enumerate(weights, start=1)})

    def _job(self, ctx: Context) -> Job:
        given = {"rate": self.rate, "easy": self.easy / self.epochs, "beta": self.beta, "max_length": self.max_length}
        factory = partial(raven_trainer, **given, weights=ctx.out / WEIGHTS)
        return dataclasses.replace(super()._job(ctx), trainer_factory=factory)


def raven_trainer(
    *, settings: dict[str, Any], parts: dict[str, Any], rate: float, easy: float, beta: float, max_length: int,
    weights: Path,
) -> Any:  # fmt: skip
    """Return the trainer; `easy` is a share of the steps, and the final weights are written to the file `weights`."""
    from cong.training.committee import CommitteeTrainer

    config = preference_config(settings, beta=beta, max_length=max_length)
    return CommitteeTrainer(args=config, rate=rate, easy=easy, weights=weights, **parts)


def raven_loss(
    *, ratios: "torch.Tensor", margins: "torch.Tensor", weights: "torch.Tensor", beta: float
) -> "torch.Tensor":
    """Return the loss of each pair (N) from the student's log-ratios of chosen over rejected (N), the members' margins
    (N x M) and their weights (M)."""
    from torch.nn.functional import logsigmoid

    together = (2 * margins.sigmoid() - 1) @ weights
    # A pair without a preference stays as it is.
    signs = (together.detach() >= 0) * 2 - 1
    return -logsigmoid((beta + signs * together) * signs * ratios)


def easy_loss(*, ratios: "torch.Tensor", margins: "torch.Tensor", beta: float) -> "torch.Tensor":
    """Return the loss of each pair in the easy phase, 0 where not all members agree."""
    from torch.nn.functional import logsigmoid

    agreed = (margins > 0).all(dim=1) | (margins < 0).all(dim=1)
    signs = (margins[:, 0] >= 0) * 2 - 1
    return -logsigmoid(beta * signs * ratios) * agreed


def moved(weights: "torch.Tensor", *, gradient: "torch.Tensor", rate: float) -> "torch.Tensor":
    """Return the weights after a step of gradient descent, on the simplex again."""
    clamped = (weights - rate * gradient).clamp_min(LEAST_WEIGHT)
    return clamped / clamped.sum()
