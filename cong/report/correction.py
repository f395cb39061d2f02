"""What a student does where its weak teacher is wrong, and where the teacher has not spoken.

    found = correction(student, weak, right_above=0.5)
    found.corrected           # P(student right | weak wrong)
    found.spoiled             # P(student wrong | weak right)

After Lang, Sontag & Vijayaraghavan (2024, arXiv:2405.16043): pseudolabel correction, and coverage expansion, which here
is the gain on prompts that were left out of the training. Their expansion constants would need an oracle of
neighbourhoods.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cong.evaluation import EVALUATION, bootstrap
from cong.experiment import Results
from cong.report.resampling import paired_tables, percentile_interval, resampled_means
from cong.report.statistics import Estimate, over_seeds

if TYPE_CHECKING:
    import numpy as np

NORMAL = 1.96
"""Standard errors in half a 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Shares of held-out prompts; None where there is no prompt of the kind."""

    corrected: Estimate | None
    """P(student right | weak wrong)."""
    spoiled: Estimate | None
    """P(student wrong | weak right)."""
    student_right: float
    weak_right: float


def correction(
    student: Results, weak: Results, *, right_above: float, name: str = "reward", seed: int = 0
) -> Correction:
    """Return how often a student is right where its teacher is wrong, and wrong where it is right.

    Right is a response whose measure is above `right_above`: 0.5 where the reward is 0 or 1; of other rewards see
    `usual_reward`. Shares are of all prompts of all seeds; 95 % intervals are a percentile bootstrap over prompts and
    seeds together (with one seed, over prompts alone). If both models were independent, `corrected` would be
    `student_right`, and `spoiled` its complement.
    """
    right = [(table > right_above).astype(float) for table in paired_tables([student, weak], name=name)]
    ours, theirs = (_mean(right, column) for column in (0, 1))
    return Correction(
        corrected=_share([_conditional(table, of=1.0, given=0.0) for table in right], seed=seed),
        spoiled=_share([_conditional(table, of=0.0, given=1.0) for table in right], seed=seed),
        student_right=ours,
        weak_right=theirs,
    )


def _conditional(right: "np.ndarray", *, of: float, given: float) -> "np.ndarray":
    """Return per prompt whether the weak model is as given and the student as asked, and whether it is as given."""
    import numpy as np

    condition = right[:, 1] == given
    return np.stack([condition & (right[:, 0] == of), condition], axis=1).astype(float)


def _share(tables: "list[np.ndarray]", *, seed: int) -> Estimate | None:
    both, condition = (_mean(tables, column) for column in (0, 1))
    if not condition:
        return None
    drawn = resampled_means(tables, seed=seed)
    # A resample without any such prompt has no share.
    kept = drawn[:, 1] > 0
    low, high = percentile_interval(drawn[kept, 0] / drawn[kept, 1])
    return Estimate(mean=both / condition, low=low, high=high, seeds=len(tables))


def _mean(tables: "list[np.ndarray]", column: int) -> float:
    """Return a mean over seeds of means over prompts."""
    return math.fsum(float(table[:, column].mean()) for table in tables) / len(tables)


def usual_reward(weak: Results, *, name: str = "reward") -> float:
    """Return the median reward of the weak model's responses: above it a response is called right.

    A reward of free text has no zero of its own. With the median about half of the weak model's responses are wrong,
    so that both shares have as many prompts as can be, and nothing changes under a monotonous change of the reward.
    """
    import numpy as np

    return float(np.median([row[name] for result in weak for row in result.rows(EVALUATION)]))


def gain_left_out(
    heldout: tuple[Results, Results], trained: tuple[Results, Results], *, name: str = "reward"
) -> Estimate:
    """Return the gain of student over weak model on prompts left out of the training, minus that on those trained on.

    Both are pairs of (student, weak), a result per seed. The interval is Student's t over seeds; with one seed it is
    made of the bootstrap errors of both gains, whose prompts are not the same.
    """
    gains = [[_gain(table) for table in paired_tables(pair, name=name)] for pair in (heldout, trained)]
    differences = [one["gain"] - other["gain"] for one, other in zip(*gains, strict=True)]
    if len(differences) > 1:
        return over_seeds(differences)
    half = NORMAL * math.hypot(*(one["gain_se"] for (one,) in gains))
    return Estimate(mean=differences[0], low=differences[0] - half, high=differences[0] + half, seeds=1)


def _gain(table: "np.ndarray") -> dict[str, float]:
    return bootstrap("gain", [float(one - other) for one, other in table], seed=0)
