"""How much of the gap between a weak model, or the base, and a ceiling a student recovers.

    recovered(student, floor=weak, ceiling=ceiling)      # PGR, performance gap recovered
    recovered(student, floor=base, ceiling=ceiling)      # Recovery

PGR = (student - weak) / (ceiling - weak) is the headline figure of weak-to-strong generalization (Burns et al., 2023,
arXiv:2312.09390, section 3); Recovery = (student - base) / (ceiling - base). Both are shares of one gap, without a
unit: an affine change of the reward that keeps its direction changes neither. 1 is the ceiling, 0 the floor. Above 1
the student is better than the ceiling, which is legitimate; below 0 it is worse than the floor.
"""

from typing import TYPE_CHECKING

from cong.evaluation import EVALUATION
from cong.experiment import Result, Results
from cong.report.statistics import Estimate

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 2000
UNDEFINED = "undefined"
_TERMS = 3
"""Student, floor and ceiling, in this order."""


def recovered(
    student: Results, *, floor: Results, ceiling: Results, name: str = "reward", seed: int = 0
) -> Estimate | None:
    """Return the share of the gap from floor to ceiling that the student recovers; None where it is undefined.

    It is the quotient of two means over seeds. Its 95 % interval is a percentile bootstrap over prompts and seeds
    together: a resample draws seeds, and within each its prompts, the same for all three terms. With one seed the
    interval does not hold the spread between seeds, with a few it is too narrow. Undefined is the share where the
    interval of the gap is not wholly above 0: then it is not known that there is a gap.
    """
    tables = [_table(results, name) for results in zip(student, floor, ceiling, strict=True)]
    if not tables:
        return None
    drawn = _resampled(tables, seed=seed)
    gaps = drawn[:, 2] - drawn[:, 1]
    if not _interval(gaps)[0] > 0:
        return None
    # Of the resamples 2.5 % at most have no gap, and no share.
    kept = gaps > 0
    low, high = _interval((drawn[kept, 0] - drawn[kept, 1]) / gaps[kept])
    one, lowest, highest = (sum(float(table[:, term].mean()) for table in tables) for term in range(_TERMS))
    return Estimate(mean=(one - lowest) / (highest - lowest), low=low, high=high, seeds=len(tables))


def share_text(found: Estimate | None) -> str:
    """Return a share as it is printed in a table."""
    return UNDEFINED if found is None else str(found)


def _table(results: tuple[Result, ...], name: str) -> "np.ndarray":
    """Return a measure of one seed (prompts x terms), on the prompts that all terms have."""
    import numpy as np

    if len({result.axes["seed"] for result in results}) > 1:
        raise ValueError(f"terms of different seeds: {', '.join(result.cell.name for result in results)}")
    columns = [{row["prompt_id"]: row[name] for row in result.rows(EVALUATION)} for result in results]
    common = [prompt_id for prompt_id in columns[0] if all(prompt_id in column for column in columns[1:])]
    if not common:
        raise ValueError(f"no prompt in common: {', '.join(result.cell.name for result in results)}")
    return np.array([[column[prompt_id] for column in columns] for prompt_id in common])


def _resampled(tables: "list[np.ndarray]", *, seed: int) -> "np.ndarray":
    """Return the mean of each term (resamples x terms) when seeds are drawn, and prompts within each of them."""
    import numpy as np

    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(tables), size=(RESAMPLES, len(tables)))
    means = np.empty((*chosen.shape, _TERMS))
    for number, table in enumerate(tables):
        places = chosen == number
        rows = rng.integers(len(table), size=(int(places.sum()), len(table)))
        # Term by term: all three together would be three times the memory of a large set of prompts.
        means[places] = np.stack([column[rows].mean(axis=1) for column in table.T], axis=1)
    return means.mean(axis=1)


def _interval(values: "np.ndarray") -> tuple[float, float]:
    import numpy as np

    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
