"""How far judges agree, people and models alike: item by item (Cohen's kappa), and in the order of the methods.

    judges = {"ann": {("ConG", "p1"): 2.0, ...}, "gpt": {...}}          # (method, prompt_id) to a preference in [1, 2]
    agreements(judges)[0].kappa
    orders(judges)[0].spearman

Preferences become a win of the baseline, a tie or a win of the model; what only one of two judges rated is left out.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Item = tuple[str, str]
"""Method and prompt_id."""
Preferences = Mapping[Item, float]
LABELS = ("baseline", "tie", "model")


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two judges on the items that both rated. Kappa is None where neither of them ever varies."""

    first: str
    second: str
    items: int
    agreed: float
    kappa: float | None


@dataclass(frozen=True, kw_only=True)
class OrderAgreement:
    """Two judges' orders of the methods by win rate on common items; None where one ranks all alike."""

    first: str
    second: str
    methods: int
    spearman: float | None
    kendall: float | None


def label_of(preference: float) -> str:
    """Return who wins."""
    return LABELS[1] if preference == 1.5 else LABELS[2] if preference > 1.5 else LABELS[0]


def agreements(judges: Mapping[str, Preferences]) -> list[Agreement]:
    """Return the agreement of every two judges that have items in common."""
    from sklearn.metrics import cohen_kappa_score

    found = []
    for (first, one), (second, other) in itertools.combinations(judges.items(), 2):
        common = sorted(set(one) & set(other))
        if not common:
            continue
        labels = [[label_of(ratings[item]) for item in common] for ratings in (one, other)]
        varied = len({*labels[0], *labels[1]}) > 1
        kappa = float(cohen_kappa_score(*labels, labels=list(LABELS))) if varied else None
        agreed = sum(a == b for a, b in zip(*labels, strict=True)) / len(common)
        found.append(Agreement(first=first, second=second, items=len(common), agreed=agreed, kappa=kappa))
    return found


def orders(judges: Mapping[str, Preferences]) -> list[OrderAgreement]:
    """Return how every two judges agree on the order of at least two methods."""
    found = []
    for (first, one), (second, other) in itertools.combinations(judges.items(), 2):
        common = set(one) & set(other)
        rates = [win_rates({item: ratings[item] for item in common}) for ratings in (one, other)]
        if len(rates[0]) > 1:
            pairs = [(rates[0][method], rates[1][method]) for method in sorted(rates[0])]
            spearman, kendall = _rank_correlations(pairs)
            found.append(
                OrderAgreement(first=first, second=second, methods=len(pairs), spearman=spearman, kendall=kendall)
            )
    return found


def win_rates(ratings: Preferences) -> dict[str, float]:
    """Return every method's mean preference as a share of wins."""
    groups: dict[str, list[float]] = defaultdict(list)
    for (method, _), preference in ratings.items():
        groups[method].append(preference - 1)
    return {method: sum(group) / len(group) for method, group in groups.items()}


def _rank_correlations(pairs: list[tuple[float, float]]) -> tuple[float | None, float | None]:
    from scipy import stats

    first, second = zip(*pairs, strict=True)
    if len(set(first)) == 1 or len(set(second)) == 1:
        return None, None
    results: list[Any] = [test(first, second) for test in (stats.spearmanr, stats.kendalltau)]
    values = [float(result.statistic) for result in results]
    spearman, kendall = (None if math.isnan(value) else value for value in values)
    return spearman, kendall
