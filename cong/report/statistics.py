"""Means over seeds, with intervals, for tables and figures."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cong.evaluation import EVALUATION, bootstrap
from cong.experiment import Result, Results

_NORMAL = 1.96
"""Standard errors in half a 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval and how many seeds it rests on."""

    mean: float
    low: float
    high: float
    seeds: int
    error: float = 0.0
    """Standard error over seeds; 0 for one."""

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def times(self, factor: float) -> "Estimate":
        """Return the same in another unit, such as points for shares."""
        values = {name: factor * getattr(self, name) for name in ("mean", "low", "high", "error")}
        return Estimate(**values, seeds=self.seeds)


def estimate(results: Iterable[Result], name: str) -> Estimate:
    """Return the mean of a measure over seeds.

    Over several seeds the interval is Student's t over the seeds' means; with one seed it is that seed's bootstrap
    interval over prompts, which does not hold the spread between seeds.
    """
    found = list(results)
    if len(found) == 1 or len({result.values[name] for result in found}) == 1:
        # One seed, or seeds that change nothing here: greedy decoding of one model.
        only = found[0].values
        return Estimate(mean=only[name], low=only[f"{name}_low"], high=only[f"{name}_high"], seeds=1)
    return over_seeds([float(result.values[name]) for result in found])


def difference(first: Results, second: Results, name: str) -> Estimate:
    """Return the mean of `first` - `second`, paired by prompt and seed, with an interval like that of `estimate`."""
    return contrast([(1.0, first), (-1.0, second)], name)


Terms = list[tuple[float, Results]]
"""Weights, each with the results that it weighs."""


def contrast(terms: Terms, name: str) -> Estimate:
    """Return the weighted sum of a measure over several sets of results, paired by prompt and seed.

    Weights that sum to 0 compare: 1 and -1 are a difference, centred values of an axis a slope. The interval is like
    that of `estimate`.
    """
    gaps = [_sums(list(zip([weight for weight, _ in terms], results, strict=True)), name)
            for results in zip(*(results for _, results in terms), strict=True)]  # fmt: skip
    if len(gaps) == 1:
        found = bootstrap("gap", gaps[0], seed=0)
        return Estimate(mean=found["gap"], low=found["gap_low"], high=found["gap_high"], seeds=1)
    return over_seeds([sum(values) / len(values) for values in gaps])


def mean_terms(results: Results, axis: str, values: Sequence[float], weight: float) -> Terms:
    """Return the terms of a mean over values of an axis; where there are none, it is one that was not measured."""
    return [(weight / len(values), select(results, **{axis: value})) for value in values] or [(weight, [])]


def slope_terms(results: Results, axis: str, values: Sequence[float], *, per: float) -> Terms:
    """Return the terms of a least-squares slope along an axis, per so much of it; none for less than three points."""
    if len(values) < 3:
        return []
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values)
    return [(per * (value - mean) / spread, select(results, **{axis: value})) for value in values]


def mean_difference(first: Results, second: Results, names: Sequence[str]) -> Estimate:
    """Return `first` - `second` in the mean of several figures of the summaries, such as accuracies, paired by seed.

    With one seed the interval is made of the figures' own standard errors, as if nothing were paired: it is too wide.
    """
    pairs = list(zip(first, second, strict=True))
    gaps = [sum(one.values[name] - other.values[name] for name in names) / len(names) for one, other in pairs]
    if len(gaps) > 1:
        return over_seeds(gaps)
    squares = (result.values[f"{name}_se"] ** 2 for result in pairs[0] for name in names)
    half = _NORMAL * math.sqrt(sum(squares)) / len(names)
    return Estimate(mean=gaps[0], low=gaps[0] - half, high=gaps[0] + half, seeds=1)


def over_seeds(values: list[float]) -> Estimate:
    """Return the mean of one value per seed with Student's 95 % interval."""
    from scipy import stats

    mean = sum(values) / len(values)
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return Estimate(mean=mean, low=mean - half, high=mean + half, seeds=len(values), error=error)


def _sums(terms: Sequence[tuple[float, Result]], name: str) -> list[float]:
    """Return the weighted sum for every prompt that the first result has."""
    first = terms[0][1]
    for _, other in terms:
        if other.axes["seed"] != first.axes["seed"]:
            raise ValueError(f"a pair of two seeds: {first.cell.name} and {other.cell.name}")
    tables = [(weight, {row["prompt_id"]: row[name] for row in result.rows(EVALUATION)}) for weight, result in terms]
    return [sum(weight * table[prompt] for weight, table in tables) for prompt in tables[0][1]]


def select(results: Results, **axes: object) -> Results:
    """Return the results that lie at the given values of the axes."""
    return [result for result in results if all(result.axes.get(key) == value for key, value in axes.items())]


def values_of(results: Results, axis: str) -> list:
    """Return the values of an axis in the order in which they come, each once."""
    return list(dict.fromkeys(result.axes[axis] for result in results if axis in result.axes))


def spearman(x: list[float], y: list[float]) -> float:
    """Return Spearman's rank correlation."""
    from scipy import stats

    return float(stats.spearmanr(x, y).statistic)  # pyright: ignore[reportAttributeAccessIssue]
