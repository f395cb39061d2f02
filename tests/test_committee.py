"""Pairs of a committee: which are made, what each member says of them, and how often it is right."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import small
from hypothesis import given
from hypothesis import strategies as st
from test_pairs import run_on
from toy import run

from cong import methods
from cong.data import MARGINS, PAIRS, SCORES, read_rows
from cong.data.prompts import LocalFile, PromptFile
from cong.errors import NothingLeft
from cong.graph.stage import Stage
from cong.scoring import CommitteePairs, MemberAgreement, Reward, Score
from cong.scoring.committee import Pairing, agree


class First(Reward):
    """A reward of its own class, so that scores differ."""


class Second(Reward):
    """Another."""


class Third(Reward):
    """A third."""


RESPONSES = PromptFile(file=LocalFile(path=__file__))
SCORED = tuple(Score(responses=RESPONSES, judge=kind()) for kind in (First, Second, Third))


def rows(rewards: Mapping[str, Sequence[float | None]]) -> list[dict]:
    return [
        {"row_id": f"{key}#{n}", "prompt_id": key, "prompt": "?", "sample": n, "response": f"{key}{n}"}
        | {"reward": reward}
        for key, found in rewards.items()
        for n, reward in enumerate(found)
    ]


def committee(
    tables: Sequence[Mapping[str, Sequence[float | None]]], tmp_path: Path, *, pairing: Pairing = "extremes"
) -> tuple[list[dict], dict]:
    stage = CommitteePairs(scored=SCORED[: len(tables)], pairing=pairing)
    files: dict[Stage, dict[str, list[dict]]] = {
        one: {SCORES: rows(table)} for one, table in zip(stage.scored, tables, strict=True)
    }
    results = run_on(stage, files, tmp_path)[1]
    return read_rows(tmp_path / PAIRS), results


def test_one_member_has_its_best_against_its_worst_with_the_margin_in_its_deviations(tmp_path):
    (pair, other), results = committee([{"a": [1.0, 5.0, 3.0], "b": [0.0, 0.0, 3.0]}], tmp_path)
    assert (pair["chosen"], pair["rejected"], other["chosen"], other["rejected"]) == ("a1", "a0", "b2", "b0")
    deviation = math.sqrt((4 + 4 + 0 + 1 + 1 + 4) / 6)
    assert results["deviation_1"] == pytest.approx(deviation)
    assert pair[MARGINS] == pytest.approx([4 / deviation])
    assert other[MARGINS] == pytest.approx([3 / deviation])
    assert results["agreed"] == results["pairs"] == 2


def test_members_count_equally_whatever_their_nats(tmp_path):
    quiet, loud = {"a": [1.0, 0.0, 0.5]}, {"a": [0.0, 1000.0, 900.0]}
    (pair,), results = committee([quiet, loud], tmp_path)
    # Together the third is best: neither's favourite is the other's worst.
    assert pair["chosen"] == "a2"
    again, _ = committee([quiet, {"a": [0.0, 10.0, 9.0]}], tmp_path)
    assert again[0][MARGINS] == pytest.approx(pair[MARGINS])
    assert results["deviation_2"] > 400 > results["deviation_1"]


def test_a_member_that_would_have_it_the_other_way_round_has_a_margin_below_0(tmp_path):
    tables = [{"a": [2.0, 0.0]}, {"a": [3.0, 0.0]}, {"a": [0.0, 1.0]}]
    (pair,), results = committee(tables, tmp_path)
    assert (pair["chosen"], pair["rejected"]) == ("a0", "a1")
    assert [margin > 0 for margin in pair[MARGINS]] == [True, True, False]
    assert (results["pairs"], results["agreed"]) == (1, 0)


def test_drawn_are_the_first_two_that_differ_whatever_the_members_say_of_others(tmp_path):
    tables = [{"a": [0.0, 1.0, 9.0], "b": [3.0, 0.0, -9.0]}, {"a": [2.0, 0.0, 9.0], "b": [3.0, 0.0, -9.0]}]
    pairs, results = committee(tables, tmp_path, pairing="drawn")
    assert {frozenset((pair["chosen"], pair["rejected"])) for pair in pairs} == {
        frozenset(("a0", "a1")), frozenset(("b0", "b1")),
    }  # fmt: skip
    # The first is as the members have it in the mean: the second's gap is larger than the first's.
    assert [pair["chosen"] for pair in pairs] == ["a0", "b0"]
    assert [[margin > 0 for margin in pair[MARGINS]] for pair in pairs] == [[False, True], [True, True]]
    assert results["agreed"] == 1


def test_candidates_that_a_member_has_not_scored_and_prompts_without_a_preference_are_left_out(tmp_path):
    tables = [{"a": [9.0, 1.0, 0.0], "b": [1.0, 1.0]}, {"a": [None, 1.0, 0.0], "b": [2.0, 2.0]}]
    (pair,), results = committee(tables, tmp_path)
    assert (pair["chosen"], pair["rejected"]) == ("a1", "a2")
    assert (results["pairs"], results["dropped"]) == (1, 1)
    with pytest.raises(NothingLeft, match="no pair is left"):
        committee([{"a": [1.0, 1.0]}], tmp_path)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=4))
def test_members_agree_where_all_margins_have_one_sign(margins):
    assert agree(margins) == (min(margins) > 0 or max(margins) < 0)


def test_a_committee_of_none_or_of_different_responses_is_refused():
    with pytest.raises(ValueError, match="one member at least"):
        CommitteePairs(scored=())
    other = Score(responses=PromptFile(file=LocalFile(path=small.__file__)), judge=Second())
    wrong: Any = "best"
    with pytest.raises(ValueError, match="pairing = 'best' is not one of"):
        CommitteePairs(scored=SCORED, pairing=wrong)
    with pytest.raises(ValueError, match="different responses"):
        CommitteePairs(scored=(SCORED[0], other))


def test_the_accuracy_of_a_member_is_how_often_the_truth_has_the_pair_its_way_round(tmp_path):
    pairs = CommitteePairs(scored=SCORED[:2])
    stage = MemberAgreement(pairs=pairs, truth=SCORED[2])
    margins = {"a": [1.0, -1.0], "b": [2.0, 1.0], "c": [0.5, 0.0], "d": [1.0, 1.0]}
    made = [
        {"prompt_id": key, "prompt": "?", "chosen": "x", "rejected": "y", MARGINS: one} for key, one in margins.items()
    ]
    truth = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (1.0, 0.0), "d": (1.0, 1.0)}
    scores = [
        {"prompt_id": key, "response": text, "reward": reward}
        for key, both in truth.items()
        for text, reward in zip("xy", both, strict=True)
    ]
    results = run_on(stage, {pairs: {PAIRS: made}, stage.truth: {SCORES: scores}}, tmp_path)[1]
    assert results["pairs"] == 3
    assert results["accuracy_1"] == pytest.approx(2 / 3)
    assert results["accuracy_2"] == pytest.approx((0 + 0 + 0.5) / 3)


def test_the_extremes_of_a_committee_of_one_weak_pair_are_the_pairs_of_weak_teacher(small_run):
    t = methods.transition("qwen", weak="1.5B", strong="1.5B", scale=small.small_scale())
    drawn, theirs = methods.committee_pairs(t, members=(t.implicit,)), methods.weak_teacher(t).data
    ours = dataclasses.replace(drawn, pairing="extremes")
    run(small_run.store, ours, theirs)
    one, other = (read_rows(small_run.store.directory(stage) / PAIRS) for stage in (ours, theirs))
    sides = ("prompt_id", "chosen", "rejected")
    assert [[row[side] for side in sides] for row in one] == [[row[side] for side in sides] for row in other]
    assert all(row[MARGINS][0] > 0 for row in one)
