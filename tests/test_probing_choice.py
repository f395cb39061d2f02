"""Which responses a student learns from: the best share by a score, and by prompt one of two sources."""

import pytest
from test_probing import Length, files, responses
from test_training_tiny import run, summary

from cong.data import RESPONSES, SCORES, read_rows, write_rows
from cong.probing import Chance, Mixture, TopShare
from cong.scoring import Score


def test_a_share_keeps_the_best_rows_as_they_are_and_chance_keeps_as_many(tmp_path):
    data = responses(tmp_path / "responses")
    score = Score(responses=data, judge=Length())
    half, chance = (TopShare(scored=one, share=0.5) for one in (score, Score(responses=data, judge=Chance(seed=1))))
    for stage in (half, chance):
        run(stage, tmp_path / "store")
    kept, drawn = (files(stage, tmp_path, RESPONSES) for stage in (half, chance))
    rewards = {row["row_id"]: row["reward"] for row in files(score, tmp_path, SCORES)}
    worst = min(rewards[row["row_id"]] for row in kept)
    assert all(reward <= worst for row_id, reward in rewards.items() if row_id not in {row["row_id"] for row in kept})
    assert len(kept) == len(drawn) == 12
    every = read_rows(tmp_path / "responses" / RESPONSES)
    assert [row for row in every if row in kept] == kept
    numbers = [row["reward"] for row in files(chance.scored, tmp_path, SCORES)]
    assert len(set(numbers)) == 24
    assert all(0 <= one < 1 for one in numbers)
    with pytest.raises(ValueError, match=r"share = 0 is not in \(0, 1\]"):
        TopShare(scored=score, share=0)


@pytest.mark.parametrize(("threshold", "own"), [(-1.0, 24), (99.0, 0), (4.0, None)])
def test_a_mixture_takes_the_scored_response_above_the_threshold_and_else_the_other(tmp_path, threshold, own):
    data, other = responses(tmp_path / "own"), responses(tmp_path / "weak", words=" weak")
    stage = Mixture(scored=Score(responses=data, judge=Length()), otherwise=other, threshold=threshold)
    told = summary(run(stage, tmp_path / "store"))
    rows = files(stage, tmp_path, RESPONSES)
    assert [row["prompt_id"] for row in rows] == [f"p{number}" for number in range(24)]
    for row in rows:
        assert (row["source"] == "otherwise") == row["response"].endswith("weak")
        assert (row["source"] == "scored") == (len(row["prompt"].split()) > threshold)
    assert told["scored"] + told["otherwise"] == told["rows"] == 24
    assert own is None or told["scored"] == own
    assert own is not None or 0 < told["scored"] < 24


def test_a_prompt_that_one_source_lacks_has_the_other_or_is_left_out(tmp_path):
    data, other = responses(tmp_path / "own", rows=4), responses(tmp_path / "weak", rows=4, words=" weak")
    rows = read_rows(tmp_path / "weak" / RESPONSES)
    failed = [row | {"error": "lost" if row["prompt_id"] in ("p0", "p1") else None} for row in rows]
    write_rows(tmp_path / "weak" / RESPONSES, failed)
    limit = sorted(len(row["prompt"].split()) for row in rows[:2])[0]
    stage = Mixture(scored=Score(responses=data, judge=Length()), otherwise=other, threshold=limit)
    run(stage, tmp_path / "store")
    found = {row["prompt_id"] for row in files(stage, tmp_path, RESPONSES)}
    lost = {row["prompt_id"] for row in rows[:2] if len(row["prompt"].split()) <= limit}
    assert found == {"p0", "p1", "p2", "p3"} - lost
    assert lost
