"""Weights of pairs by confidence, and whether a judge agrees the more the larger they are."""

import math

import pytest
import small
from hypothesis import given
from hypothesis import strategies as st
from test_pairs import run_on
from toy import run

from cong import methods
from cong.data import PAIRS, SCORES, read_rows
from cong.data.prompts import LocalFile, PromptFile
from cong.errors import NothingLeft
from cong.graph.stage import Stage
from cong.scoring import AgreementByWeight, PreferencePairs, WeighedPairs
from cong.scoring.weighed import confidence

GAPS = {"a": 3.0, "b": 0.5, "c": 0.0, "d": -0.5}
SIDES = ("chosen", "rejected")


def stages() -> tuple[Stage, Stage, PreferencePairs]:
    chosen, rejected = (PromptFile(file=LocalFile(path=path)) for path in (__file__, small.__file__))
    return chosen, rejected, PreferencePairs(chosen=chosen, rejected=rejected)


def pairs_with_rewards(gaps: dict[str, float]) -> list[dict]:
    rewards = {"chosen_reward": -40.0, "rejected_reward": -40.0}
    return [
        {"prompt_id": key, "prompt": "?", "chosen": f"{key}+", "rejected": f"{key}-", **rewards}
        | {"chosen_reward": gap - 40.0}
        for key, gap in gaps.items()
    ]


def weighed(gaps: dict[str, float], tmp_path, **fields) -> tuple[list[dict], dict]:
    _, _, pairs = stages()
    stage = WeighedPairs(pairs=pairs, **{"beta": 0.1, **fields})
    results = run_on(stage, {pairs: {PAIRS: pairs_with_rewards(gaps)}}, tmp_path)[1]
    return read_rows(tmp_path / PAIRS), results


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_a_weight_is_twice_what_the_preference_of_the_rewards_is_above_one_half(tmp_path):
    rows, results = weighed(GAPS, tmp_path)
    expected = [2 * (sigmoid(0.1 * max(gap, 0.0)) - 0.5) for gap in GAPS.values()]
    assert [row["weight"] for row in rows] == pytest.approx(expected)
    assert [row["prompt_id"] for row in rows] == list(GAPS)
    assert (results["pairs"], results["swapped"], results["weight_zero"], results["dropped_unscored"]) == (4, 0, 2, 0)
    assert results["weight_mean"] == pytest.approx(sum(expected) / 4)
    names = [f"weight_q{share}" for share in (10, 25, 50, 75, 90)]
    assert [results[name] for name in names] == sorted(results[name] for name in names)
    assert results["weight_q50"] == pytest.approx(expected[1] / 2)


def test_with_swap_a_pair_that_is_better_the_other_way_round_is_turned_and_keeps_its_weight(tmp_path):
    rows, results = weighed(GAPS, tmp_path, swap=True)
    assert [(row["chosen"], row["swapped"]) for row in rows] == [
        ("a+", False),
        ("b+", False),
        ("c+", False),
        ("d-", True),
    ]
    assert rows[3]["weight"] == pytest.approx(rows[1]["weight"])
    assert (rows[3]["chosen_reward"], rows[3]["rejected_reward"], rows[3]["gap"]) == (-40.0, -40.5, 0.5)
    assert (results["swapped"], results["weight_zero"]) == (1, 1)


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 10), st.floats(0, 100))
def test_weights_lie_between_0_and_1_and_rise_with_the_gap(gap, beta, more):
    assert 0 <= confidence(gap, beta=beta) <= confidence(gap + more, beta=beta) <= 1
    assert confidence(-abs(gap), beta=beta) == 0


def test_the_scores_of_a_judge_come_before_the_rewards_of_the_pairs(tmp_path):
    chosen, rejected, pairs = stages()
    stage = WeighedPairs(pairs=pairs, beta=1.0, chosen=chosen, rejected=rejected)
    inputs: dict[Stage, dict[str, list[dict]]] = {
        pairs: {PAIRS: pairs_with_rewards(GAPS)},
        chosen: {SCORES: [{"prompt_id": key, "reward": 2.0 if key != "b" else None} for key in GAPS]},
        rejected: {SCORES: [{"prompt_id": key, "reward": 0.0} for key in reversed(GAPS)]},
    }
    results = run_on(stage, inputs, tmp_path)[1]
    rows = read_rows(tmp_path / PAIRS)
    assert [row["prompt_id"] for row in rows] == ["a", "c", "d"]
    assert {row["weight"] for row in rows} == {math.tanh(1.0)}
    assert results["dropped_unscored"] == 1
    inputs[chosen][SCORES] = [row | {"reward": None} for row in inputs[chosen][SCORES]]
    with pytest.raises(NothingLeft, match="of no pair of PreferencePairs are both sides scored"):
        run_on(stage, inputs, tmp_path)


def test_pairs_without_rewards_and_half_the_scores_are_refused(tmp_path):
    chosen, _, pairs = stages()
    bare = [{"prompt_id": "a", "prompt": "?", "chosen": "x", "rejected": "y"}]
    with pytest.raises(ValueError, match="PreferencePairs holds no rewards of its pairs"):
        run_on(WeighedPairs(pairs=pairs, beta=1.0), {pairs: {PAIRS: bare}}, tmp_path)
    with pytest.raises(ValueError, match="scores of both sides are needed, or of neither"):
        WeighedPairs(pairs=pairs, beta=1.0, chosen=chosen)
    with pytest.raises(ValueError, match="beta = 0 is not above 0"):
        WeighedPairs(pairs=pairs, beta=0)


def agreement(weights: list[float], explicit: list[tuple[float | None, float]], tmp_path, *, parts: int = 2) -> dict:
    """Return what the stage says of pairs with these weights and explicit rewards of both sides."""
    chosen, rejected, pairs = stages()
    stage = AgreementByWeight(pairs=WeighedPairs(pairs=pairs, beta=1.0), scored=(chosen, rejected), parts=parts)
    rows = [
        {"prompt_id": f"p{n}", "prompt": "?", "chosen": "x", "rejected": "y", "weight": one}
        for n, one in enumerate(weights)
    ]
    scores = [
        [{"prompt_id": f"p{n}", "response": text, "reward": pair[side]} for n, pair in enumerate(explicit)]
        for side, text in enumerate("xy")
    ]
    inputs: dict[Stage, dict[str, list[dict]]] = {
        stage.pairs: {PAIRS: rows}, chosen: {SCORES: scores[0]}, rejected: {SCORES: scores[1]}
    }  # fmt: skip
    return run_on(stage, inputs, tmp_path)[1]


def test_agreement_is_counted_in_parts_of_equal_size_from_the_smallest_weight_up(tmp_path):
    found = agreement([0.9, 0.1, 0.2, 0.8], [(1, 0), (0, 1), (1, 1), (2, 0)], tmp_path)
    assert (found["pairs_1"], found["chosen_better_1"]) == (2, 0.25)
    assert (found["pairs_2"], found["chosen_better_2"]) == (2, 1.0)
    assert (found["weight_1"], found["weight_2"]) == pytest.approx((0.15, 0.85))
    assert (found["pairs"], found["unscored"]) == (4, 0)


def test_a_pair_that_the_judge_has_not_scored_is_counted_apart_and_an_empty_part_has_no_share(tmp_path):
    found = agreement([0.9, 0.1], [(1, 0), (None, 1)], tmp_path, parts=2)
    assert (found["pairs"], found["unscored"], found["pairs_1"], found["pairs_2"]) == (1, 1, 0, 1)
    assert "chosen_better_1" not in found
    assert found["chosen_better_2"] == 1.0


def test_the_weights_of_weak_teachers_pairs_are_those_of_its_implicit_rewards(small_run):
    t = methods.transition("qwen", weak="1.5B", strong="1.5B", scale=small.small_scale())
    stage = methods.cw_po(t)
    run(small_run.store, stage.data)
    rows = read_rows(small_run.store.directory(stage.data) / PAIRS)
    assert len(rows) > 20
    for row in rows:
        gap = row["chosen_reward"] - row["rejected_reward"]
        assert row["weight"] == pytest.approx(2 * (sigmoid(0.1 * gap) - 0.5))
