"""Whether the misfit of a student and its weak teacher tells what the student gains, and which teacher to take.

    correlation(misfits, gains, by="Spearman")          # over transitions, with its interval
    chosen = least_misfit(candidates)                   # no label is needed
    regret(candidates, chosen)

Where strong models are convex heads that contain the truth, error(student) <= error(weak) - misfit (Charikar et al.,
2024, arXiv:2405.15116, for the squared loss; Mulgund & Pabbaraju, 2025, arXiv:2501.19105, for KL(student || weak)).
Language models are neither, and SFT minimizes the divergence in the other direction: what holds of them is measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cong.experiment import Results
from cong.methods import WEAK_ALIGNED
from cong.report.resampling import RESAMPLES, percentile_interval
from cong.report.statistics import select

if TYPE_CHECKING:
    import numpy as np

CorrelationBy = Literal["Pearson", "Spearman"]
FEWEST = 3
"""Points that a correlation takes: two always lie on a line."""


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A coefficient of correlation with its 95 % interval, and over how many points."""

    value: float
    low: float
    high: float
    points: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def correlation(x: Sequence[float], y: Sequence[float], *, by: CorrelationBy, seed: int = 0) -> Correlation | None:
    """Return the correlation of two measures over points, with a percentile bootstrap over the points.

    None where there are less than three points, or one of the measures is the same at all of them. A resample in which
    one of them is has no correlation, and is left out.
    """
    import numpy as np

    both = np.array([x, y], dtype=float)
    count = both.shape[1]
    if count < FEWEST or (np.ptp(both, axis=1) == 0).any():
        return None
    drawn = both[:, np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))]
    kept = (np.ptp(drawn, axis=2) > 0).all(axis=0)
    low, high = percentile_interval(_coefficients(drawn[:, kept], by))
    return Correlation(value=float(_coefficients(both[:, None], by)[0]), low=low, high=high, points=count)


def _coefficients(drawn: "np.ndarray", by: CorrelationBy) -> "np.ndarray":
    """Return a coefficient per resample; `drawn` is 2 x resamples x points."""
    import numpy as np
    from scipy import stats

    values = stats.rankdata(drawn, axis=2) if by == "Spearman" else drawn
    centred = values - values.mean(axis=2, keepdims=True)
    return (centred[0] * centred[1]).sum(axis=1) / np.sqrt((centred**2).sum(axis=2).prod(axis=0))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A weak model for a given strong one, and the student that it makes of it."""

    name: str
    misfit: float
    weak: float
    """Reward of the weak model, whose unit is another than that of the misfit."""
    student: float
    """Reward of the student: what the choice is judged by."""

    @property
    def gain(self) -> float:
        """Return how much better the student is than its teacher."""
        return self.student - self.weak


Place = tuple[str, ...]
"""A transition with one seed: family, weak size, strong size and seed."""


def candidates_of(results: Results, student: str, *, misfit: str = "reward") -> dict[Place, Candidate]:
    """Return the weak model of every transition with the student that a method makes of it.

    Axes of the results are family, weak, strong, seed, method, and `of`: "reward" or "misfit". `misfit` is the measure
    of the latter: `reward` in nats per response, `implicit_per_token` in nats per token.
    """
    rewards, misfits = (_by_place(select(results, of=of, method=student)) for of in ("reward", "misfit"))
    weak = _by_place(select(results, of="reward", method=WEAK_ALIGNED))
    return {
        place: Candidate(
            name=f"{place[0].partition('-')[0]} {place[1]}",
            misfit=misfits[place][misfit],
            weak=weak[place]["reward"],
            student=rewards[place]["reward"],
        )
        for place in weak
    }


def _by_place(results: Results) -> dict[Place, dict[str, float]]:
    return {tuple(str(one.axes[axis]) for axis in ("family", "weak", "strong", "seed")): one.values for one in results}


def by_strong(candidates: Mapping[Place, Candidate]) -> list[list[Candidate]]:
    """Return the weak models that there are for each strong model and seed, where there are several."""
    groups: dict[Place, list[Candidate]] = {}
    for (family, _, strong, seed), candidate in candidates.items():
        groups.setdefault((family.rpartition("-")[2], strong, seed), []).append(candidate)
    return [group for group in groups.values() if len(group) > 1]


def least_misfit(candidates: Sequence[Candidate]) -> Candidate:
    """Return the weak model whose student has the smallest misfit; no label is needed."""
    return min(candidates, key=lambda candidate: candidate.misfit)


def least_bound(candidates: Sequence[Candidate], *, rate: float = 1.0) -> Candidate:
    """Return the weak model with the smallest bound of the student's error: its own error minus the misfit.

    An error is minus the reward. `rate` is what a unit of misfit is worth in rewards (`gain_rate`); it is 1 where both
    have one unit. Labels are needed for the errors of the weak models.
    """
    return min(candidates, key=lambda candidate: -candidate.weak - rate * candidate.misfit)


def best_weak(candidates: Sequence[Candidate]) -> Candidate:
    """Return the weak model with the highest reward of its own: what labels alone would choose."""
    return max(candidates, key=lambda candidate: candidate.weak)


def gain_rate(candidates: Sequence[Candidate]) -> float:
    """Return the slope of gain against misfit through 0, by least squares; 0 where there is no misfit."""
    squares = math.fsum(candidate.misfit**2 for candidate in candidates)
    return math.fsum(candidate.gain * candidate.misfit for candidate in candidates) / squares if squares else 0.0


def regret(candidates: Sequence[Candidate], chosen: Candidate) -> float:
    """Return by how much the best student of any weak model is better than that of the chosen one."""
    return max(candidate.student for candidate in candidates) - chosen.student


def mean_regret(candidates: Sequence[Candidate]) -> float:
    """Return the regret of a choice at random."""
    return math.fsum(regret(candidates, candidate) for candidate in candidates) / len(candidates)


def regrets(groups: Sequence[Sequence[Candidate]]) -> dict[str, list[float]]:
    """Return by chooser its regret in every group: the weak models that there are for one strong model and seed.

    What a nat is worth in rewards is fitted on the other groups: no group is chosen from by its own students.
    """
    rates = [gain_rate([one for other in groups if other is not group for one in other]) for group in groups]
    return {
        "smallest misfit (no labels)": [regret(group, least_misfit(group)) for group in groups],
        "smallest error - misfit": [
            regret(group, least_bound(group, rate=rate)) for group, rate in zip(groups, rates, strict=True)
        ],
        "smallest error": [regret(group, best_weak(group)) for group in groups],
        "at random": [mean_regret(group) for group in groups],
    }
