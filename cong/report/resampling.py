"""Bootstrap over prompts and seeds together, of what is made of the means of several terms.

tables = paired_tables([student, weak], name="reward")      # one per seed: prompts x terms
draws = resampled_means(tables, seed=0)                     # resamples x terms
low, high = percentile_interval(draws[:, 0] - draws[:, 1])
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cong.evaluation import EVALUATION
from cong.experiment import Result, Results

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 2000


def paired_tables(terms: Sequence[Results], *, name: str) -> "list[np.ndarray]":
    """Return a measure per seed (prompts x terms), on the prompts that all terms have.

    Each term holds a result per seed, all in the same order; raise `ValueError` where they are not.
    """
    return [_table(results, name) for results in zip(*terms, strict=True)]


def _table(results: tuple[Result, ...], name: str) -> "np.ndarray":
    import numpy as np

    if len({result.axes["seed"] for result in results}) > 1:
        raise ValueError(f"terms of different seeds: {', '.join(result.cell.name for result in results)}")
    columns = [{row["prompt_id"]: row[name] for row in result.rows(EVALUATION)} for result in results]
    common = [prompt_id for prompt_id in columns[0] if all(prompt_id in column for column in columns[1:])]
    if not common:
        raise ValueError(f"no prompt in common: {', '.join(result.cell.name for result in results)}")
    return np.array([[column[prompt_id] for column in columns] for prompt_id in common])


def resampled_means(tables: "Sequence[np.ndarray]", *, seed: int) -> "np.ndarray":
    """Return the mean of each term (resamples x terms) when seeds are drawn, and prompts within each of them.

    In a resample all terms have the same prompts. With one seed the spread between seeds is not in it.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(tables), size=(RESAMPLES, len(tables)))
    means = np.empty((*chosen.shape, tables[0].shape[1]))
    for number, table in enumerate(tables):
        places = chosen == number
        rows = rng.integers(len(table), size=(int(places.sum()), len(table)))
        # Term by term: all of them together would be several times the memory of a large set of prompts.
        means[places] = np.stack([column[rows].mean(axis=1) for column in table.T], axis=1)
    return means.mean(axis=1)


def percentile_interval(values: "np.ndarray") -> tuple[float, float]:
    """Return the 95 % percentile interval."""
    import numpy as np

    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
