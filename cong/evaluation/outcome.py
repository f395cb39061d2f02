"""From the rows of a comparison to the figures of the judge's benchmark: WR with LC, or WR with SC, in per cent."""

import math
from typing import Any

from cong.data import Row
from cong.evaluation.alpaca_eval import FOLDS, GamedTable, length_controlled, win_rate
from cong.evaluation.arena_hard import BASELINE, Games, arena_hard
from cong.evaluation.judging.judges import AlpacaEval2, ArenaHardJudge, PairJudge
from cong.evaluation.markdown import Measure, style_of, words_and_marks
from cong.graph.stage import Context
from cong.models import model_dir

_MODEL = "model"


def outcome(ctx: Context, judge: PairJudge, rows: list[Row]) -> dict[str, Any]:
    """Return the summary of a comparison; a figure that the rows do not allow is None."""
    if isinstance(judge, ArenaHardJudge):
        measure = words_and_marks if judge.tokenizer is None else _tokens(ctx, judge)
        return arena_hard_outcome(rows, judge=judge, measure=measure)
    tables = None
    if isinstance(judge, AlpacaEval2) and judge.tables is not None:
        tables = GamedTable.read(judge.tables.text(), source=judge.tables.path)
    return alpaca_eval_outcome(rows, tables=tables)


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


def arena_hard_outcome(rows: list[Row], *, judge: ArenaHardJudge, measure: Measure) -> dict[str, Any]:
    """Return WR and SC with their bootstrap intervals."""
    judged = [row for row in rows if row["error"] is None]
    games = [
        Games(question=row["prompt_id"], model=_MODEL, first=row["labels"][0], second=row["labels"][1])
        for row in judged
    ]
    styles = {}
    for row in judged:
        for name, text in ((_MODEL, row["response"]), (BASELINE, row["baseline_response"])):
            styles[name, row["prompt_id"]] = style_of(text, length=measure(text))
    found = arena_hard(games, version=judge.version, styles=styles).get(_MODEL)
    if found is None:
        return dict.fromkeys(("wr", "wr_low", "wr_high", "sc", "sc_low", "sc_high"))
    intervals = {"wr": found.win_rate, "sc": found.style_controlled}
    figures: dict[str, Any] = {"battles": found.battles, "dropped": found.dropped}
    for name, interval in intervals.items():
        assert interval is not None
        figures |= {name: interval.center, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return figures


def _tokens(ctx: Context, judge: ArenaHardJudge) -> Measure:
    from transformers import AutoTokenizer

    assert judge.tokenizer is not None
    tokenizer: Any = AutoTokenizer.from_pretrained(model_dir(ctx, judge.tokenizer))
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
