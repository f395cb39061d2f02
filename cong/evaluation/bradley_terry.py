"""Bradley-Terry fits of battles against one baseline, with bootstrap intervals: Arena-Hard's arithmetic.

v0.1 WR   every model meets the baseline only, so the unpenalised fit is the mean share; 95 % of the resampled fits
v0.1 SC   (a - b) / (a + b + 1) of length and of each count, z-scored; L2 with C = 1; 95 %
v2.0 WR   the mean of the resampled means; 90 %
v2.0 SC   (a - b) / (a + b) of length, densities per token of the counts, z-scored; no penalty; median of the fits; 90 %

v2.0's own fit stops before it has converged, which moves its SC by up to a third of a point; this one converges.

    win_rate_v01([Battle(question="q", model="m", share=1.0), ...], rounds=100, seed=42)["m"]
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from cong.evaluation.markdown import Style

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Battle:
    """One count of a game: `share` is 1 where the model wins against the baseline, 0.5 at a tie."""

    question: str
    model: str
    share: float


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure in per cent with its bootstrap interval."""

    center: float
    low: float
    high: float


StylePair = tuple[Style, Style]
"""The model's and the baseline's."""


def win_rate_v01(battles: Sequence[Battle], *, rounds: int, seed: int) -> dict[str, Interval]:
    """Return the fitted win rate of every model; battles are resampled over all models."""
    import numpy as np

    frame = _frame(battles)
    draws = _resampled(frame, rounds=rounds, seed=seed)
    # A draw without any battle of a model says nothing about it.
    return {
        model: _interval(share, np.nanpercentile([draw.get(model, np.nan) for draw in draws], [2.5, 97.5]))
        for model, share in frame.groupby("model")["share"].mean().items()
    }


def win_rate_v2(battles: Sequence[Battle], *, rounds: int, seed: int) -> dict[str, Interval]:
    """Return the mean of the resampled means of every model; each model's battles are resampled by themselves."""
    import numpy as np
    import pandas as pd

    state = np.random.RandomState(seed)
    groups = _frame(battles).groupby("model")
    drawn = (groups.sample(frac=1.0, replace=True, random_state=state) for _ in range(rounds))
    means: Any = pd.concat([sample.groupby("model")["share"].mean() for sample in drawn], axis=1).T
    return {model: _interval(means[model].mean(), means[model].quantile([0.05, 0.95])) for model in means.columns}


def style_v01(battles: Sequence[Battle], pairs: Sequence[StylePair], *, rounds: int, seed: int) -> dict[str, Interval]:
    """Return the win rates at equal style, by a fit with an L2 penalty."""
    import numpy as np

    table = _Table.of(battles, _ratios(pairs))
    rng = np.random.default_rng(seed)
    rows = [rng.integers(len(battles), size=len(battles)) for _ in range(rounds)]
    fits = np.array([_fit(table.take(drawn), scale=math.log(10), c=1.0) for drawn in rows])
    low, high = np.percentile(fits, [2.5, 97.5], axis=0)
    return table.intervals(_fit(table, scale=math.log(10), c=1.0), low, high)


def style_v2(battles: Sequence[Battle], pairs: Sequence[StylePair], *, rounds: int, seed: int) -> dict[str, Interval]:
    """Return the median win rates at equal style over resampled fits without a penalty."""
    import numpy as np

    table = _Table.of(battles, _densities(pairs))
    rows = np.random.RandomState(seed).randint(low=0, high=len(battles), size=(rounds, len(battles)))
    fits = np.array([_fit(table.take(drawn), scale=1.0, c=np.inf) for drawn in rows])
    low, center, high = np.quantile(fits, [0.05, 0.5, 0.95], axis=0)
    return table.intervals(center, low, high)


def _interval(center: float, bounds) -> Interval:
    low, high = bounds
    return Interval(center=100 * float(center), low=100 * float(low), high=100 * float(high))


def _frame(battles: Sequence[Battle]) -> Any:
    import pandas as pd

    return pd.DataFrame({"model": [b.model for b in battles], "share": [b.share for b in battles]})


def _resampled(frame: Any, *, rounds: int, seed: int) -> list[dict[str, float]]:
    import numpy as np

    state = np.random.RandomState(seed)
    samples = (frame.sample(frac=1.0, replace=True, random_state=state) for _ in range(rounds))
    return [sample.groupby("model")["share"].mean().to_dict() for sample in samples]


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Battles as numbers: which model played, the style's features, the share of a win."""

    names: list[str]
    players: "np.ndarray"
    features: "np.ndarray"
    shares: "np.ndarray"

    @classmethod
    def of(cls, battles: Sequence[Battle], features: "np.ndarray") -> "_Table":
        import numpy as np

        names = sorted({battle.model for battle in battles})
        place = {name: number for number, name in enumerate(names)}
        players = np.array([place[battle.model] for battle in battles])
        return cls(names=names, players=players, features=features, shares=np.array([b.share for b in battles]))

    def take(self, rows: "np.ndarray") -> "_Table":
        return _Table(
            names=self.names, players=self.players[rows], features=self.features[rows], shares=self.shares[rows]
        )

    def intervals(self, center: "np.ndarray", low: "np.ndarray", high: "np.ndarray") -> dict[str, Interval]:
        bounds = zip(self.names, center, low, high, strict=True)
        return {name: _interval(middle, (lower, upper)) for name, middle, lower, upper in bounds}


def _fit(table: _Table, *, scale: float, c: float) -> "np.ndarray":
    """Return every model's chance at equal style. `c` is infinite for no penalty; `scale` is a battle's in the fit."""
    import numpy as np
    from scipy.special import expit
    from sklearn.linear_model import LogisticRegression

    if np.ptp(table.shares) == 0 and table.shares[0] != 0.5:
        # All battles end alike: the fit would go on for ever.
        return np.full(len(table.names), table.shares[0])
    columns = np.hstack([np.eye(len(table.names))[table.players], np.full((len(table.players), 1), -1.0)])
    design = np.hstack([columns * scale, table.features])
    # Every battle counts twice, so that a tie is a win and a loss.
    outcome, weights = np.repeat([1, 0], len(design)), 2 * np.concatenate([table.shares, 1 - table.shares])
    model = LogisticRegression(C=c, fit_intercept=False, tol=1e-8, max_iter=1000)
    strength = model.fit(np.vstack([design, design]), outcome, sample_weight=weights).coef_[0] * scale
    return expit(strength[: len(table.names)] - strength[len(table.names)])


def _counts(pairs: Sequence[StylePair]) -> tuple["np.ndarray", "np.ndarray"]:
    import numpy as np

    ours, theirs = (np.array([astuple(pair[side]) for pair in pairs], dtype=float) for side in (0, 1))
    return ours, theirs


def _ratios(pairs: Sequence[StylePair]) -> "np.ndarray":
    """Return the relative gaps in length, headers, list items and bold passages as z-scores."""
    ours, theirs = _counts(pairs)
    return _scaled((ours - theirs) / (ours + theirs + 1), ddof=0)


def _densities(pairs: Sequence[StylePair]) -> "np.ndarray":
    """Return the gap in length, and those in headers, list items and bold passages per token, as z-scores."""
    import numpy as np

    ours, theirs = _counts(pairs)
    length = (ours[:, :1] - theirs[:, :1]) / np.maximum(ours[:, :1] + theirs[:, :1], 1)
    own, other = (side[:, 1:] / (side[:, :1] + 1) for side in (ours, theirs))
    return _scaled(np.hstack([length, (own - other) / (own + other + 1)]), ddof=1)


def _scaled(features: "np.ndarray", *, ddof: int) -> "np.ndarray":
    """Return z-scores; a feature in which no two battles differ explains nothing and is 0."""
    import numpy as np

    centered, spread = features - features.mean(axis=0), features.std(axis=0, ddof=ddof)
    return np.divide(centered, spread, out=np.zeros_like(centered), where=spread > 1e-9)
