"""AlpacaEval 2 and Arena-Hard: against published rows where `CONG_REFERENCE_DATA` names their directory, and by hand.

The reference data is AlpacaEval's and Arena-Hard's own and no part of this project.
"""

import json
import math
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cong.errors import UserError
from cong.evaluation.alpaca_eval import GamedTable, length_controlled, win_rate
from cong.evaluation.arena_hard import BASELINE, Games, arena_hard, battles_of, verdict_of
from cong.evaluation.bradley_terry import Battle, win_rate_v01
from cong.evaluation.judging.judges import preference, switched
from cong.evaluation.markdown import Style, style_of, words_and_marks

REFERENCE = os.environ.get("CONG_REFERENCE_DATA")
needs_reference = pytest.mark.skipif(not REFERENCE, reason="CONG_REFERENCE_DATA names no directory of reference data")
MODELS = ("alpaca-7b", "claude-2", "FuseChat-Llama-3.1-8B-Instruct")


def reference(name: str) -> Path:
    path = Path(REFERENCE or "") / name
    if not path.exists():
        pytest.skip(f"the reference data has no {name}")
    return path


@cache
def annotations(model: str) -> Any:
    import pandas as pd

    rows: Any = pd.read_parquet(reference("alpacaeval2_dev.parquet"))
    return rows[rows["model"] == model].sort_values("index").reset_index(drop=True)


@cache
def gamed() -> GamedTable:
    return GamedTable.read(reference("alpacaeval2_df_gamed_surrogate.csv").read_text())


@cache
def published() -> Any:
    import pandas as pd

    return pd.read_csv(reference("alpacaeval2_expected_dev.csv")).set_index("model")


def lc(model: str, preferences=None, **settings):
    rows = annotations(model)
    return length_controlled(
        rows["preference"].tolist() if preferences is None else preferences,
        lengths=rows["len_model"].tolist(),
        baseline_lengths=rows["len_baseline"].tolist(),
        tables=gamed(),
        **settings,
    )


@needs_reference
@pytest.mark.parametrize("model", MODELS)
def test_alpaca_eval_figures_are_the_published_ones(model):
    row, plain = published().loc[model], win_rate(annotations(model)["preference"].tolist())
    assert plain.win_rate == pytest.approx(row["pub_win_rate"], abs=1e-4)
    assert plain.standard_error == pytest.approx(row["pub_standard_error"], abs=1e-4)
    assert (plain.wins, plain.losses, plain.draws) == (row["pub_n_wins"], row["pub_n_wins_base"], row["pub_n_draws"])
    assert lc(model, c=row["C_published_inferred"]).win_rate == pytest.approx(row["pub_lc_win_rate"], abs=0.01)
    crossed = lc(model)
    assert crossed.win_rate == pytest.approx(row["pub_lc_win_rate"], abs=0.16)
    assert crossed.c == pytest.approx(row["re_C_cv"])
    weights = [row[f"pub_w_{name}"] for name in ("len", "difficulty", "model")]
    assert list(crossed.weights.values()) == pytest.approx(weights, abs=1e-3)
    if not math.isnan(row["pub_lc_standard_error"]):
        assert crossed.standard_error == pytest.approx(row["pub_lc_standard_error"], abs=1e-4)


@needs_reference
def test_alpaca_eval_figures_with_missing_verdicts_zeros_and_draws():
    case = json.loads(reference("alpacaeval2_nan_case_dev.json").read_text())
    preferences = annotations(case["model"])["preference"].tolist()
    for name, value in (("nan_index", None), ("zero_index", 0.0), ("draw_index", 1.5)):
        for index in case[name]:
            preferences[index] = value
    found, crossed, told = win_rate(preferences), lc(case["model"], preferences), case["expected"]
    assert (found.win_rate, found.standard_error) == pytest.approx((told["win_rate"], told["standard_error"]), abs=1e-4)
    counts = [told[name] for name in ("n_wins", "n_wins_base", "n_draws", "n_total")]
    assert [found.wins, found.losses, found.draws, found.judged] == counts
    assert crossed.win_rate == pytest.approx(told["length_controlled_winrate"], abs=0.16)
    assert crossed.standard_error == pytest.approx(told["lc_standard_error"], abs=0.01)


@needs_reference
def test_alpaca_eval_preferences_and_places_are_those_of_real_judgments():
    lines = reference("alpaca_eval_prompts.jsonl").read_text().splitlines()
    instructions = [json.loads(line)["instruction"] for line in lines]
    for model in MODELS:
        for row in annotations(model).itertuples():
            assert switched(instructions[row.index]) == row.is_switched
            if not math.isnan(row.logprob_m):
                logprobs = {"m": row.logprob_m, "M": row.logprob_M}
                # The data's log-probabilities are rounded.
                assert preference(logprobs, is_switched=row.is_switched) == pytest.approx(row.preference, abs=2e-6)


def _arena(version: Any) -> Any:
    given_ = json.loads(reference("arenahard_input_dev.json").read_text())
    games = [
        Games(
            question=row["uid"],
            model=row["model"].split("/")[-1],
            **{name: (game or {}).get("score") for name, game in zip(("first", "second"), row["games"], strict=True)},
        )
        for row in given_["judgments"]
    ]
    styles = {
        (BASELINE if model == given_["baseline"] else model.split("/")[-1], question): _style(counts)
        for model, rows in given_["metadata"].items()
        for question, counts in rows.items()
    }
    return arena_hard(games, version=version, styles=styles, seed=given_["seed"]), battles_of(games, version=version)


def _style(counts: dict) -> Style:
    return Style(*(value if isinstance(value, int) else sum(value.values()) for value in counts.values()))


@needs_reference
def test_arena_hard_v01_figures_are_the_benchmarks_own():
    expected = json.loads(reference("arenahard_expected_dev.json").read_text())["v01_commit_0489bf3"]
    found, (battles, _) = _arena("v0.1")
    assert len(battles) == expected["n_battles"]
    for name, rate in expected["win_rate"].items():
        if (model := name.split("/")[-1]) in found:
            # The benchmark rounds to 0.01, and its styled fit stops at a gradient of 1e-4.
            assert found[model].win_rate.center == pytest.approx(rate, abs=0.0051)
            assert found[model].style_controlled.center == pytest.approx(expected["style_win_rate"][name], abs=0.02)
    assert len(found) == 3


@needs_reference
def test_arena_hard_v2_figures_are_the_benchmarks_own():
    expected = json.loads(reference("arenahard_expected_dev.json").read_text())["v2_head_196f6b8"]
    found, (battles, dropped) = _arena("v2.0")
    assert (len(battles), dropped) == (expected["n_battles"], 6)
    for model, row in found.items():
        # The same draws of the same generator: WR is the same number.
        told = expected["wr_bootstrap_seed20241"][model]
        bounds = [row.win_rate.center, row.win_rate.low, row.win_rate.high]
        assert bounds == pytest.approx([100 * told[name] for name in ("center", "q05", "q95")], abs=1e-9)
        # The benchmark's styled fit stops 0.2 to 0.3 points before it has converged.
        styled, told = row.style_controlled, expected["sc_bootstrap_seed20241"][model]
        assert styled is not None
        centers = [styled.center, styled.low, styled.high]
        assert centers == pytest.approx([100 * told[name] for name in ("center", "q05", "q95")], abs=0.4)
    assert len(found) == 3


@needs_reference
def test_arena_hard_win_rates_of_real_battles():
    data = json.loads(reference("arenahard_realbattles_dev.json").read_text())
    shares = {"model_a": 0.0, "tie": 0.5, "model_b": 1.0}
    battles = [
        Battle(question=str(row["question_id"]), model=row["model_b"], share=shares[row["winner"]])
        for row in data["battles"]
    ]
    for model, found in win_rate_v01(battles, rounds=100, seed=42).items():
        assert found.center == pytest.approx(data["expected"]["win_rate_vs_baseline"][model], abs=0.0051)
        assert found.low < found.center < found.high


@needs_reference
def test_every_verdict_string_is_read_as_the_benchmark_reads_it():
    lines = [json.loads(line) for line in reference("arenahard_verdicts_dev.jsonl").read_text().splitlines()]
    assert [verdict_of(line["text"]) for line in lines] == [line["score"] for line in lines]
    assert len(lines) == 17


@needs_reference
def test_the_style_of_real_answers_is_counted_as_the_benchmark_counts_it():
    for line in reference("arenahard_markdown_dev.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert style_of(row["answer"], length=row["metadata"]["token_len"]) == _style(row["metadata"])


@pytest.mark.parametrize(
    ("judgment", "verdict"),
    [
        ("My own answer ... My final verdict is tie: [[A=B]]", "A=B"),
        ("at first [[A>B]], but no: [[b>>a]].", "B>>A"),
        ("in short [A>>B]", "A>>B"),
        ("[A>B] in a list, and [[B>A]]", "B>A"),
        ("[[A > B]]", None),
        ("", None),
    ],
)
def test_the_last_verdict_in_brackets_counts(judgment, verdict):
    assert verdict_of(judgment) == verdict


def test_the_win_rate_by_hand():
    found = win_rate([2.0, 1.0, 1.5, 0.0, None, 1.75])
    # 1, 0, 1/2, 1/2, 3/4: mean 0.55, squared deviations 0.55.
    assert found.win_rate == pytest.approx(55.0)
    assert found.standard_error == pytest.approx(100 * math.sqrt(0.55 / 4 / 5))
    assert (found.wins, found.losses, found.draws, found.judged) == (2, 1, 2, 5)
    assert math.isnan(win_rate([None]).win_rate)
    with pytest.raises(ValueError, match=r"preference 2.5 is neither 0 nor in \[1, 2\]"):
        win_rate([2.5])


@pytest.mark.parametrize(
    ("logprobs", "is_switched", "expected"),
    [
        ({"m": math.log(0.6), "M": math.log(0.2)}, False, 1.25),
        ({"m": math.log(0.6), "M": math.log(0.2)}, True, 1.75),
        ({"m": -0.1, "The": -3.0}, False, 1.0),
        ({"M": -0.1}, False, 2.0),
        ({"The": -0.1}, False, float("nan")),
    ],
)
def test_a_token_that_is_missing_has_no_chance_and_two_give_no_preference(logprobs, is_switched, expected):
    assert preference(logprobs, is_switched=is_switched) == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.floats(-30, 0), min_size=2, max_size=2))
def test_exchanging_the_outputs_mirrors_the_preference(values):
    logprobs = {"m": values[0], "M": values[1]}
    one, other = (preference(logprobs, is_switched=side) for side in (False, True))
    assert one + other == pytest.approx(3)


def _own_prompts(*, slope: float, gain: float, count: int = 400):
    """A judge of our own making that likes length: the chance of a win is a logistic function of the gap."""
    import numpy as np

    rng = np.random.default_rng(0)
    theirs = rng.integers(50, 500, size=count)
    ours = np.maximum(theirs + rng.normal(150, 200, size=count).astype(int), 1)
    gap = (theirs - ours) / (theirs - ours).std(ddof=1)
    shares = 1 / (1 + np.exp(-(slope * np.tanh(gap) + gain)))
    return (1 + shares).tolist(), ours.tolist(), theirs.tolist(), 100 / (1 + math.exp(-gain))


def test_length_control_takes_out_what_length_alone_wins():
    preferences, ours, theirs, true_rate = _own_prompts(slope=-2.0, gain=-0.4)
    assert win_rate(preferences).win_rate > 55
    found = length_controlled(preferences, lengths=ours, baseline_lengths=theirs)
    assert found.win_rate == pytest.approx(true_rate, abs=0.5)
    assert found.weights["length"] == pytest.approx(-2.0, abs=0.1)
    assert 0 < found.standard_error < 5


def test_without_a_difference_in_length_the_controlled_rate_is_the_plain_one():
    preferences = [2.0] * 70 + [1.0] * 30
    found = length_controlled(preferences, lengths=[9] * 100, baseline_lengths=[9] * 100, c=1e4)
    assert found.win_rate == pytest.approx(70, abs=0.01)
    assert found.standard_error == pytest.approx(100 * math.sqrt(0.7 * 0.3 / 100), rel=0.15)
    always = length_controlled([2.0] * 6, lengths=range(6), baseline_lengths=[0] * 6)
    assert (always.win_rate, always.standard_error) == (100.0, 0.0)


def test_the_benchmarks_table_needs_all_of_its_prompts():
    table = GamedTable.read("index,preference,std_delta_len,instruction_difficulty\n0,0.4,1,0\n1,0.5,1,0.3\n")
    with pytest.raises(UserError, match="AlpacaEval's table holds 2 prompts, this comparison 3"):
        length_controlled([1.0] * 3, lengths=[1] * 3, baseline_lengths=[1] * 3, tables=table)
    with pytest.raises(UserError, match="has no column 'std_delta_len'"):
        GamedTable.read("index,preference\n0,1\n")


def test_arena_hard_by_hand():
    games = [
        Games(question="1", model="m", first="B>>A", second="A>B"),
        Games(question="2", model="m", first="A=B", second="B>A"),
        Games(question="3", model="m", first=None, second="A>>B"),
        Games(question="4", model="m", first="AB", second="A=B"),
    ]
    # Game 1 shows the baseline first: 3 + 1 wins, half, loss; v0.1 keeps the other game of questions 3 and 4.
    battles, dropped = battles_of(games, version="v0.1")
    assert ([battle.share for battle in battles], dropped) == ([1, 1, 1, 1, 0.5, 0, 1, 1, 1, 0.5], 2)
    assert arena_hard(games, version="v0.1")["m"].win_rate.center == pytest.approx(80)
    battles, dropped = battles_of(games, version="v2.0")
    assert (sorted(battle.share for battle in battles), dropped) == ([0, 0.5, 1, 1, 1, 1], 2)
    found = arena_hard(games, version="v2.0")["m"].win_rate
    assert found.low <= found.center <= found.high


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_style_control_takes_out_what_style_alone_wins(version):
    """Two models that differ in how often they write more than the baseline, and a judge that likes what is longer."""
    games, styles = [], {}
    for number in range(200):
        question = str(number)
        styles[BASELINE, question] = Style(length=250 + number, headers=1, lists=0, bold=0)
        for model, long in (("wordy", number % 4 != 0), ("terse", number % 4 == 1)):
            won = long != (number % 10 == 0)
            first, second = ("B>A", "A>B") if won else ("A>B", "B>A")
            games.append(Games(question=question, model=model, first=first, second=second))
            length = 600 + number if long else 100
            styles[model, question] = Style(length=length, headers=number % 3, lists=0, bold=0)
    found: Any = arena_hard(games, version=version, styles=styles)
    (wordy, terse), (wordy_styled, terse_styled) = (
        (found["wordy"].win_rate.center, found["terse"].win_rate.center),
        (found["wordy"].style_controlled.center, found["terse"].style_controlled.center),
    )
    assert wordy - terse > 30
    assert abs(wordy_styled - terse_styled) < 10
    alone: Any = arena_hard(games[::2], version=version, styles=styles)["wordy"]
    assert alone.style_controlled.center > wordy_styled + 10


def test_battles_that_all_end_alike_are_a_rate_of_100():
    games = [Games(question=str(n), model="m", first="B>A", second="A>B") for n in range(5)]
    same = Style(length=3, headers=0, lists=0, bold=0)
    styles = {(model, str(n)): same for model in ("m", BASELINE) for n in range(5)}
    for version in ("v0.1", "v2.0"):
        found = arena_hard(games, version=version, styles=styles)["m"]
        assert found.win_rate.center == 100
        assert found.style_controlled is not None
        assert found.style_controlled.center == 100


def test_markdown_in_code_blocks_is_no_style():
    answer = "# Title\n\n1. one\n2. **two**\n* three __four__\n\n```\n# no title\n- nothing\n```\n####### seven"
    assert style_of(answer, length=12) == Style(length=12, headers=1, lists=3, bold=2)
    assert words_and_marks("Two words, one mark!") == 6
