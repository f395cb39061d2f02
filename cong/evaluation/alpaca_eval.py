"""AlpacaEval 2: win rate (WR) and length-controlled win rate (LC) with their standard errors.

A preference lies between 1 (the baseline wins) and 2 (the model wins); 1.5, or 0, is a draw, and None says that the
judge gave none.

    win_rate([1.9, 1.2, None]).win_rate                                                 # 55.0
    length_controlled(preferences, lengths=ours, baseline_lengths=theirs, tables=GamedTable.read(file)).win_rate

With the benchmark's own table of gamed outputs this is its published procedure, for its 805 prompts in their order. On
other prompts there is no such table: then the fit has the length and the model alone, and its error is a bootstrap's.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cong.errors import UserError

if TYPE_CHECKING:
    import numpy as np

GAMED_WEIGHT = 0.1
"""0.2, shared by the two gamed baselines."""
FOLDS = 5
RESAMPLES = 200
_SEED = 123
_COLUMNS = ("index", "preference", "std_delta_len", "instruction_difficulty")


@dataclass(frozen=True, kw_only=True)
class WinRate:
    """WR in per cent with its standard error over prompts, and what was counted."""

    win_rate: float
    standard_error: float
    wins: int
    losses: int
    draws: int
    judged: int


@dataclass(frozen=True, kw_only=True)
class LengthControlled:
    """LC in per cent, its standard error, and the fit behind it: C and the weights of length, difficulty and model."""

    win_rate: float
    standard_error: float
    c: float
    weights: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class GamedTable:
    """The benchmark's `df_gamed.csv`: verdicts on outputs made short and long on purpose, and prompts' difficulty."""

    rows: Any

    @classmethod
    def read(cls, text: str, *, source: str = "df_gamed.csv") -> "GamedTable":
        """Parse the file's content; raise `UserError` when it is another file's."""
        import pandas as pd

        rows = pd.read_csv(io.StringIO(text))
        missing = [name for name in _COLUMNS if name not in rows.columns]
        if missing:
            raise UserError(f"{source} has no column {missing[0]!r}: it is not AlpacaEval's df_gamed.csv")
        return cls(rows=rows)

    @property
    def difficulty(self) -> "np.ndarray":
        """The difficulty of every prompt, in the benchmark's order."""
        return self.rows.drop_duplicates("index").sort_values("index")["instruction_difficulty"].to_numpy()


def win_rate(preferences: Sequence[float | None]) -> WinRate:
    """Return WR over the prompts that have a preference."""
    import numpy as np

    values = as_shares(preferences)
    values = values[~np.isnan(values)]
    count = len(values)
    return WinRate(
        win_rate=100 * float(values.mean()) if count else float("nan"),
        standard_error=100 * float(values.std(ddof=1)) / count**0.5 if count > 1 else float("nan"),
        wins=int((values > 0.5).sum()),
        losses=int((values < 0.5).sum()),
        draws=int((values == 0.5).sum()),
        judged=count,
    )


def as_shares(preferences: Sequence[float | None]) -> "np.ndarray":
    """Return preferences as shares of a win in [0, 1], NaN where there is none."""
    import numpy as np

    values = np.array([np.nan if value is None else value for value in preferences], dtype=float)
    values = np.where(values == 0, 1.5, values)
    wrong = values[(values < 1) | (values > 2)]
    if len(wrong):
        raise ValueError(f"preference {wrong[0]} is neither 0 nor in [1, 2]")
    return values - 1


def length_controlled(
    preferences: Sequence[float | None],
    *,
    lengths: Sequence[int],
    baseline_lengths: Sequence[int],
    tables: GamedTable | None = None,
    c: float | None = None,
) -> LengthControlled:
    """Return LC: the win rate that the fit predicts where both answers are equally long. `c` None cross-validates it.

    Lengths are in characters, one per preference; with `tables` all three are in the order of the benchmark's prompts.
    """
    import numpy as np

    difficulty = None if tables is None else _difficulty(tables, len(preferences))
    ours = _design(_length_feature(lengths, baseline_lengths), difficulty, model=1.0)
    shares, weights = as_shares(preferences), np.ones(len(preferences))
    features, targets = ours, shares
    if tables is not None:
        gamed = _design(tables.rows["std_delta_len"].to_numpy(), tables.rows["instruction_difficulty"], model=0.0)
        features = np.vstack([gamed, ours])
        targets = np.concatenate([tables.rows["preference"].to_numpy(), shares])
        weights = np.concatenate([np.full(len(gamed), GAMED_WEIGHT), weights])
    known = ~np.isnan(targets)
    if known.sum() < FOLDS:
        raise ValueError(f"{int(known.sum())} preferences are too few for a length-controlled win rate: {FOLDS} needed")
    data = (features[known], targets[known], weights[known])
    if tables is None and _one_sided(data[1]):
        # A judge that never wavers leaves nothing to fit: no length explains a difference that is not there.
        return LengthControlled(win_rate=100 * float(data[1][0]), standard_error=0.0, c=c or float("nan"), weights={})
    coefficients, chosen = _fit(*data, c=c)
    predicted = _predict(ours, coefficients)
    error = predicted.std(ddof=1) / len(predicted) ** 0.5 if tables else _bootstrap_error(*data, c=chosen)
    return LengthControlled(
        win_rate=100 * float(predicted.mean()),
        standard_error=100 * float(error),
        c=chosen,
        weights=dict(zip(("length", "difficulty", "model"), map(float, coefficients), strict=True)),
    )


def _difficulty(tables: GamedTable, prompts: int) -> "np.ndarray":
    found = tables.difficulty
    if len(found) != prompts:
        raise UserError(
            f"AlpacaEval's table holds {len(found)} prompts, this comparison {prompts}: its LC needs all of them"
        )
    return found


def _length_feature(lengths: Sequence[int], baseline_lengths: Sequence[int]) -> "np.ndarray":
    import numpy as np

    gaps = np.asarray(baseline_lengths, dtype=float) - np.asarray(lengths, dtype=float)
    spread = gaps.std(ddof=1) if len(gaps) > 1 else 0.0
    return gaps / spread if spread else np.zeros_like(gaps)


def _design(standard_gap: "np.ndarray", difficulty: Any, *, model: float) -> "np.ndarray":
    """Return the columns of the fit: tanh of the length gap, difficulty (0 where unknown), and who is judged."""
    import numpy as np

    hard = np.zeros(len(standard_gap)) if difficulty is None else np.asarray(difficulty, dtype=float)
    return np.column_stack([np.tanh(standard_gap), hard, np.full(len(standard_gap), model)])


def _predict(features: "np.ndarray", coefficients: "np.ndarray") -> "np.ndarray":
    """Return the probability of a win with the length column at 0."""
    from scipy.special import expit

    return expit(features[:, 1:] @ coefficients[1:])


def _fit(
    features: "np.ndarray", targets: "np.ndarray", weights: "np.ndarray", *, c: float | None
) -> tuple["np.ndarray", float]:
    """Fit a logistic regression without intercept to shares of a win: each row twice, as a win and as a loss."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    twice, outcome = np.vstack([features, features]), np.repeat([1, 0], len(targets))
    share = np.concatenate([targets, 1 - targets])
    if c is None:
        return _fit_cross_validated(twice, outcome, share, np.concatenate([weights, weights]))
    model = LogisticRegression(C=c, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=_SEED)
    model.fit(twice, outcome, sample_weight=share * np.concatenate([weights, weights]))
    return model.coef_[0], c


def _fit_cross_validated(
    features: "np.ndarray", outcome: "np.ndarray", share: "np.ndarray", weights: "np.ndarray"
) -> tuple["np.ndarray", float]:
    import numpy as np
    import sklearn
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GroupKFold

    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(_weighted_log_loss, response_method="predict_proba", greater_is_better=False)
        # L1; the class's stubs know its new parameters only as text.
        penalty: dict[str, Any] = {"l1_ratios": (1.0,), "use_legacy_attributes": False}
        scoring: Any = scorer.set_score_request(share=True, row_weight=True)
        model: Any = LogisticRegressionCV(
            cv=GroupKFold(n_splits=FOLDS),
            scoring=scoring,
            solver="liblinear",
            fit_intercept=False,
            random_state=_SEED,
            **penalty,
        )
        model.set_fit_request(sample_weight=True)
        groups = np.tile(np.arange(len(share) // 2), 2)
        model.fit(features, outcome, sample_weight=share * weights, groups=groups, share=share, row_weight=weights)
    return model.coef_[0], float(model.C_)


def _weighted_log_loss(
    outcome: "np.ndarray", predicted: "np.ndarray", *, share: "np.ndarray", row_weight: "np.ndarray"
) -> float:
    import numpy as np

    won = np.where(outcome == 1, share, 1 - share)
    chance = np.clip(predicted, 1e-15, 1 - 1e-15)
    return -float(np.mean(row_weight * (won * np.log(chance) + (1 - won) * np.log(1 - chance))))


def _bootstrap_error(features: "np.ndarray", targets: "np.ndarray", weights: "np.ndarray", *, c: float) -> float:
    """Return the spread of LC over resampled prompts; without difficulties every prediction is the same number."""
    import numpy as np

    rng, found = np.random.default_rng(_SEED), []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(targets), size=len(targets))
        if _one_sided(targets[drawn]):
            found.append(targets[drawn][0])
            continue
        coefficients, _ = _fit(features[drawn], targets[drawn], weights[drawn], c=c)
        found.append(_predict(features[drawn], coefficients).mean())
    return float(np.std(found, ddof=1))


def _one_sided(targets: "np.ndarray") -> bool:
    return bool((targets == 0).all() or (targets == 1).all())
