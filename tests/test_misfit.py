"""Misfit: its estimate from samples, and what is concluded from it."""

import math

import numpy as np
import pytest
import small
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from toy import run

from cong import methods
from cong.data import SCORES, read_rows, write_rows
from cong.evaluation import EVALUATION, Evaluate
from cong.graph.runner import StageFailed
from cong.graph.store import Store
from cong.report import misfit
from cong.report.misfit import (
    Candidate,
    best_weak,
    by_strong,
    correlation,
    gain_rate,
    least_bound,
    least_misfit,
    mean_regret,
    regret,
    regrets,
)
from cong.scoring import ImplicitReward, Likelihood, Score, ScoreDifference

PER_TOKEN = "implicit_per_token"


def between(family: str = "qwen", strong_family: str | None = None) -> methods.Transition:
    given = small.small_scale()
    return methods.transition(family, weak="1.5B", strong="1.5B", scale=given, strong_family=strong_family)


def test_the_misfit_of_a_model_with_itself_is_zero_in_every_response(small_run):
    t = between()
    stage = methods.misfit(t, t.weak_aligned)
    run(small_run.store, stage)
    rows = read_rows(small_run.store.directory(stage.scored) / SCORES)
    assert len(rows) == 8 * 4
    assert {row["reward"] for row in rows} == {0.0}
    results = small_run.store.record(stage)["results"]
    assert (results["reward"], results[PER_TOKEN]) == (0, 0)


def test_in_a_family_the_misfit_is_the_implicit_reward_of_the_student_over_its_teacher(small_run):
    t = between()
    stage = methods.misfit(t, methods.weak_sft_post(t))
    student, responses = methods.weak_sft_post(t), stage.scored.scored.responses  # pyright: ignore[reportAttributeAccessIssue]
    pair = Score(responses=responses, judge=ImplicitReward(post=student, pre=t.weak_aligned))
    run(small_run.store, stage, pair)
    together = {row["row_id"]: row["reward"] for row in read_rows(small_run.store.directory(pair) / SCORES)}
    apart = read_rows(small_run.store.directory(stage.scored) / SCORES)
    assert len({round(row["reward"], 3) for row in apart}) > 3
    for row in apart:
        assert row["reward"] == pytest.approx(together[row["row_id"]], abs=1e-4)


def test_across_tokenizers_the_misfit_is_of_the_texts(small_run):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cong.data.formatting import prompt_tokens

    t = between("llama", "qwen")
    stage = methods.misfit(t, t.strong, weak=t.weak)
    run(small_run.store, stage)
    directory = small_run.store.directory(stage.scored)
    row = next(row for row in read_rows(directory / SCORES) if row["finish_reason"] == "stop")
    apart = []
    for model in (t.strong, t.weak):
        path = small_run.store.directory(model) / "model"
        tokenizer, network = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
        prompt = list(prompt_tokens(tokenizer, row))
        response = [*tokenizer(row["response"], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        with torch.no_grad():
            logprobs = network(torch.tensor([prompt + response])).logits.log_softmax(-1)[0]
        apart.append((response, sum(logprobs[len(prompt) + at - 1, token].item() for at, token in enumerate(response))))
    (ours, student), (theirs, weak) = apart
    assert ours != theirs
    assert row["reward"] == pytest.approx(student - weak, abs=1e-3)


def made_by_hand(store: Store, *, rewards: list[float | None], others: list[float | None]) -> ScoreDifference:
    """Return a difference whose scores are in the store: two prompts with two samples each, of 2 or 4 tokens."""
    t = between()
    responses = t.generate(t.strong, t.heldout, samples=2)
    first, second = (Score(responses=responses, judge=Likelihood(model=model)) for model in (t.strong, t.weak_aligned))
    for stage, values in ((first, rewards), (second, others)):
        rows = [
            {
                "row_id": f"p{number // 2}#{number % 2}", "prompt_id": f"p{number // 2}", "prompt": "?",
                "sample": number % 2, "response": "r", "num_tokens": 2 + 2 * (number % 2), "finish_reason": "stop",
                "error": None if value is not None else "no score", "reward": value,
            }
            for number, value in enumerate(values)
        ]  # fmt: skip
        directory = store.directory(stage)
        directory.mkdir(parents=True)
        # Scores are joined by their row: the order of a file says nothing.
        write_rows(directory / SCORES, rows if stage is first else rows[::-1])
        store.publish(stage, {"stage": stage.name, "label": "", "fingerprint": stage.fingerprint, "results": {}})
    return ScoreDifference(scored=first, minus=second)


def test_the_misfit_is_the_mean_log_ratio_of_hand_made_log_probabilities(store):
    gap = made_by_hand(store, rewards=[-1.0, -2.0, -3.0, -4.0], others=[-3.0, -2.0, -3.5, -8.0])
    stage = Evaluate(scored=gap, implicit=gap)
    run(store, stage)
    results = store.record(stage)["results"]
    assert results["reward"] == pytest.approx((2 + 0 + 0.5 + 4) / 4)
    assert results[PER_TOKEN] == pytest.approx((2 / 2 + 0 / 4 + 0.5 / 2 + 4 / 4) / 4)
    rows = {row["prompt_id"]: row["reward"] for row in read_rows(store.directory(stage) / EVALUATION)}
    assert rows == {"p0": 1.0, "p1": 2.25}


def test_a_response_that_one_model_could_not_score_has_no_difference_and_says_why(store):
    gap = made_by_hand(store, rewards=[-1.0, None, -3.0, -4.0], others=[-3.0, -2.0, None, -8.0])
    run(store, gap)
    rows = read_rows(store.directory(gap) / SCORES)
    assert [row["reward"] for row in rows] == [2.0, None, None, 4.0]
    assert [row["error"] for row in rows] == [None, "no score", "no score", None]
    assert store.record(gap)["results"] == {"rows": 4, "scored_rows": 2, "mean_reward": 3.0}


def test_a_difference_of_nothing_or_of_other_responses_is_refused(store):
    t = between()
    one, other = (t.generate(t.strong, t.heldout, samples=samples) for samples in (1, 2))
    with pytest.raises(ValueError, match="scores of two sets of responses"):
        ScoreDifference(scored=Score(responses=one, judge=t.reward), minus=Score(responses=other, judge=t.reward))
    gap = made_by_hand(store, rewards=[-1.0, None], others=[None, -2.0])
    with pytest.raises(StageFailed, match="no response is scored by both"):
        run(store, gap)


def candidate(name: str, misfit: float, weak: float, student: float) -> Candidate:
    return Candidate(name=name, misfit=misfit, weak=weak, student=student)


def test_choosers_and_their_regrets_are_those_computed_by_hand():
    group = [candidate("a", 1.0, 0.5, 0.9), candidate("b", 3.0, 0.6, 1.4), candidate("c", 2.0, 0.2, 1.5)]
    assert (least_misfit(group).name, best_weak(group).name) == ("a", "b")
    # Errors minus misfits: -0.5 - 1 rate, -0.6 - 3 rate, -0.2 - 2 rate.
    assert [least_bound(group, rate=rate).name for rate in (1.0, 0.0, -1.0)] == ["b", "b", "a"]
    assert regret(group, group[0]) == pytest.approx(0.6)
    assert mean_regret(group) == pytest.approx((0.6 + 0.1 + 0) / 3)
    assert gain_rate(group) == pytest.approx((0.4 * 1 + 0.8 * 3 + 1.3 * 2) / (1 + 9 + 4))
    assert gain_rate([candidate("d", 0.0, 0.0, 1.0)]) == 0


def test_a_group_is_not_chosen_from_by_its_own_students():
    # Of its own students the first group would have a negative rate, and choose b.
    first = [candidate("a", 2.0, 0.0, -4.0), candidate("b", 1.0, 0.0, -2.0)]
    second = [candidate("c", 1.0, 0.0, 1.0), candidate("d", 2.0, 0.1, 2.1)]
    found = regrets([first, second])
    assert found["smallest error - misfit"] == [pytest.approx(2.0), pytest.approx(1.1)]
    assert found["smallest misfit (no labels)"] == [0.0, pytest.approx(1.1)]
    assert found["smallest error"] == [pytest.approx(2.0), 0.0]
    assert found["at random"] == [pytest.approx(1.0), pytest.approx(0.55)]


def test_weak_models_of_one_strong_model_come_together_whatever_their_family():
    one = candidate("x", 0.0, 0.0, 0.0)
    places = [
        ("qwen", "1.5B", "7B", "0"), ("qwen", "3B", "7B", "0"), ("llama-qwen", "3B", "7B", "0"),
        ("qwen", "3B", "7B", "1"), ("llama", "3B", "7B", "0"), ("qwen-llama", "3B", "7B", "0"),
    ]  # fmt: skip
    assert [len(group) for group in by_strong(dict.fromkeys(places, one))] == [3, 2]


NUMBERS = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=4, max_size=12)


@given(NUMBERS)
@settings(max_examples=30, deadline=None)
def test_correlations_are_those_of_scipy_and_lie_between_minus_1_and_1(points):
    x, y = ([float(point[axis]) for point in points] for axis in (0, 1))
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    for by, known in (("Pearson", stats.pearsonr), ("Spearman", stats.spearmanr)):
        found = correlation(x, y, by=by)  # pyright: ignore[reportArgumentType]
        assert found is not None
        assert found.value == pytest.approx(known(x, y)[0], abs=1e-9)  # pyright: ignore[reportArgumentType]
        assert found.points == len(points)
        assert -1 - 1e-9 <= found.low <= found.high <= 1 + 1e-9
        turned = correlation(x, [-value for value in y], by=by)  # pyright: ignore[reportArgumentType]
        assert turned is not None
        assert (turned.value, turned.low) == (pytest.approx(-found.value), pytest.approx(-found.high))


def test_a_line_correlates_wholly_and_what_does_not_vary_not_at_all():
    line = [0.0, 1.0, 2.0, 5.0]
    found = correlation(line, [-3 * value + 1 for value in line], by="Pearson")
    assert found is not None
    assert (found.value, found.low, found.high) == (pytest.approx(-1), pytest.approx(-1), pytest.approx(-1))
    assert correlation(line, [1.0] * 4, by="Spearman") is None
    assert correlation([0.0, 1.0], [0.0, 1.0], by="Pearson") is None
    assert correlation([], [], by="Pearson") is None


def test_the_interval_of_a_correlation_holds_the_true_one_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(misfit, "RESAMPLES", 300)
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        x = rng.normal(size=60)
        found = correlation(list(x), list(0.5 * x + math.sqrt(0.75) * rng.normal(size=60)), by="Pearson")
        assert found is not None
        held += found.low <= 0.5 <= found.high
    assert 176 <= held <= 198
