"""Best of n: which sample is chosen, and that its row is the sampled one."""

import pytest
import small
from hypothesis import given
from hypothesis import strategies as st
from toy import run

from cong import methods
from cong.data import RESPONSES, SCORES, read_rows
from cong.scoring import BestOfN, Score
from cong.scoring.best import best_rows


def between() -> methods.Transition:
    return methods.transition("qwen", weak="1.5B", strong="1.5B", scale=small.small_scale())


def rows(rewards: dict[str, list[float | None]]) -> list[dict]:
    return [
        {"row_id": f"{key}#{n}", "prompt_id": key, "sample": n, "reward": reward}
        for key, found in rewards.items()
        for n, reward in enumerate(found)
    ]


def test_the_best_of_the_first_n_samples_is_chosen_and_of_several_the_first():
    given_rows = rows({"b": [1.0, 3.0, 3.0, 9.0], "a": [None, -2.0, -1.0, -3.0], "c": [None, None, None, 1.0]})
    assert [row["row_id"] for row in best_rows(given_rows, n=3)] == ["b#1", "a#2"]
    assert [row["row_id"] for row in best_rows(given_rows[::-1], n=4)] == ["c#3", "a#2", "b#3"]


REWARDS = st.lists(st.floats(-9, 9), min_size=4, max_size=4)


@given(st.dictionaries(st.sampled_from("abcdef"), REWARDS, min_size=1), st.integers(1, 3))
def test_the_reward_by_which_is_chosen_never_falls_with_n(rewards, n):
    given_rows = rows(dict(rewards))
    less, more = (best_rows(given_rows, n=count) for count in (n, n + 1))
    assert [row["prompt_id"] for row in less] == list(rewards)
    assert all(one["reward"] <= other["reward"] for one, other in zip(less, more, strict=True))
    assert [row["sample"] for row in best_rows(given_rows, n=1)] == [0] * len(rewards)


def test_n_is_at_least_1_and_at_most_what_was_drawn():
    t = between()
    for n, message in ((0, "n = 0 is below 1"), (9, r"n = 9 is more than the 4 samples per prompt of Generate\(T=0.8")):
        with pytest.raises(ValueError, match=message):
            methods.best_of(t, n=n, drawn=4)


def test_the_best_of_1_is_sampling_and_every_row_is_one_that_was_sampled(small_run):
    t = between()
    one, best = methods.best_of(t, n=1), methods.best_of(t, n=3)
    alone = one_sample(t)
    run(small_run.store, one, best, alone)
    sampled, directly, chosen = (
        read_rows(small_run.store.directory(stage) / RESPONSES) for stage in (one, alone, best)
    )
    assert sampled == directly
    drawn = {row["row_id"]: row for row in read_rows(small_run.store.directory(best.responses) / RESPONSES)}
    assert all(drawn[row["row_id"]] == row for row in chosen)
    assert {row["sample"] for row in chosen} == {0, 1, 2}
    scores = read_rows(small_run.store.directory(best.scored) / SCORES)
    for row in chosen:
        mine = [one["reward"] for one in scores if one["prompt_id"] == row["prompt_id"]]
        assert next(one["reward"] for one in scores if one["row_id"] == row["row_id"]) == max(mine)


def one_sample(t: methods.Transition):
    return t.respond(t.weak_aligned, sampling=t.scale.candidates.sampling)


def test_several_n_share_samples_and_scores_and_every_judge_shares_the_samples():
    t = between()
    implicit = [methods.best_of(t, n=n, drawn=8) for n in (1, 8)]
    explicit = methods.best_of(t, n=8, drawn=8, explicit=True)
    assert implicit[0].scored == implicit[1].scored
    assert explicit.responses == implicit[0].responses
    assert explicit.scored.judge == t.reward
    assert implicit[0].scored.judge == t.implicit
    assert len({stage.fingerprint for stage in (*implicit, explicit)}) == 3


def test_a_best_of_n_is_read_like_responses():
    t = between()
    best = methods.best_of(t, n=2)
    assert (best.row_count(), best.prompt_count(), best.new_tokens) == (48, 48, 24)
    assert best.evaluated_model == t.weak_aligned
    assert Score(responses=best, judge=t.reward).row_count() == 48
    assert isinstance(methods.best_of_sft(t).data, BestOfN)
