"""From the rows of a comparison to the figures of the judge's benchmark, in per cent: WR and LC, or WR alone."""

import math
from typing import Any

from cong.data import Row
from cong.evaluation.alpaca_eval import FOLDS, GamedTable, length_controlled, win_rate
from cong.evaluation.arena_hard import BASELINE, Games, Version, arena_hard
from cong.evaluation.bradley_terry import Interval
from cong.evaluation.markdown import Measure, Style, style_of

_MODEL = "model"


def alpaca_eval_outcome(rows: list[Row], *, tables: GamedTable | None = None) -> dict[str, Any]:
    """Return WR and LC with standard errors. With the benchmark's table, the rows are in its order."""
    plain = win_rate([row["preference"] for row in rows])
    figures: dict[str, Any] = {
        "wr": _number(plain.win_rate),
        "wr_se": _number(plain.standard_error),
        "wins": plain.wins,
        "losses": plain.losses,
        "draws": plain.draws,
    }
    # Prompts without both texts have no lengths; the benchmark's table then has no row to be joined with.
    whole = [row for row in rows if row["response"] is not None and row["baseline_response"] is not None]
    known = sum(row["preference"] is not None for row in whole)
    if known < FOLDS or (tables is not None and len(whole) < len(rows)):
        return {**figures, "lc": None, "lc_se": None}
    controlled = length_controlled(
        [row["preference"] for row in whole],
        lengths=[len(row["response"]) for row in whole],
        baseline_lengths=[len(row["baseline_response"]) for row in whole],
        tables=tables,
    )
    return {**figures, "lc": controlled.win_rate, "lc_se": _number(controlled.standard_error)}


def arena_hard_outcome(rows: list[Row], *, version: Version) -> dict[str, Any]:
    """Return WR with its bootstrap interval; SC takes several models, see `ArenaHardTable`."""
    found = arena_hard(games_of(rows, model=_MODEL), version=version).get(_MODEL)
    if found is None:
        return dict.fromkeys(("wr", "wr_low", "wr_high"))
    return {"battles": found.battles, "dropped": found.dropped, **figures("wr", found.win_rate)}


def games_of(rows: list[Row], *, model: str) -> list[Games]:
    """Return the games behind a comparison's rows."""
    judged = [row for row in rows if row["error"] is None]
    return [
        Games(question=row["prompt_id"], model=model, first=row["labels"][0], second=row["labels"][1]) for row in judged
    ]


def styles_of(rows: list[Row], *, model: str, measure: Measure) -> dict[tuple[str, str], Style]:
    """Return the styles of a comparison's responses and of its baseline's."""
    return {
        (name, row["prompt_id"]): style_of(row[column], length=measure(row[column]))
        for row in rows
        if row["error"] is None
        for name, column in ((model, "response"), (BASELINE, "baseline_response"))
    }


def figures(name: str, interval: Interval | None) -> dict[str, float | None]:
    """Return an interval as entries of a summary or a row."""
    if interval is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    return {name: interval.center, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
