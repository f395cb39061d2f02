"""Means over seeds, with intervals, for tables and figures."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cong.experiment import Result, Results


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval and how many seeds it rests on."""

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def estimate(results: Iterable[Result], name: str) -> Estimate:
    """Return the mean of a measure over seeds.

    Over several seeds the interval is Student's t over the seeds' means; with one seed it is that seed's bootstrap
    interval over prompts, which does not hold the spread between seeds.
    """
    found = list(results)
    values = [float(result.values[name]) for result in found]
    if len(values) == 1:
        only = found[0].values
        return Estimate(mean=values[0], low=only[f"{name}_low"], high=only[f"{name}_high"], seeds=1)
    from scipy import stats

    mean = sum(values) / len(values)
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return Estimate(mean=mean, low=mean - half, high=mean + half, seeds=len(values))


def select(results: Results, **axes: object) -> Results:
    """Return the results that lie at the given values of the axes."""
    return [result for result in results if all(result.axes.get(key) == value for key, value in axes.items())]


def values_of(results: Results, axis: str) -> list:
    """Return the values of an axis in the order in which they come, each once; cells without the axis are passed over."""
    return list(dict.fromkeys(result.axes[axis] for result in results if axis in result.axes))


def spearman(x: list[float], y: list[float]) -> float:
    """Return Spearman's rank correlation."""
    from scipy import stats

    return float(stats.spearmanr(x, y).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def best_row(estimates: list[Estimate | None], *, key: Callable[[Estimate], float] = lambda e: e.mean) -> int | None:
    """Return the position of the largest estimate, or None when there is none."""
    present = [(key(item), index) for index, item in enumerate(estimates) if item is not None]
    return max(present)[1] if present else None
