"""Shares of a gap that a student recovers: identities, invariances, and when there is no share."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import Number

from cong.data import write_rows
from cong.evaluation import EVALUATION
from cong.experiment import Cell, Result, Results
from cong.report import resampling
from cong.report.recovery import recovered, share_text

SPREAD = (0.3, -0.2, 0.1, -0.4, 0.5, -0.3, 0.2, -0.2)
"""How prompts differ from each other; the mean is 0."""


class Given(Result):
    """A result whose rows are at hand."""

    table: list[dict[str, Any]]

    def rows(self, filename: str) -> list[dict[str, Any]]:
        assert filename == EVALUATION
        return self.table


def results(values: list[list[float]]) -> Results:
    """Return a result per seed with a reward per prompt."""
    made = []
    for seed, rewards in enumerate(values):
        cell = Cell(stage=Number(), axes={"seed": seed})
        result = Given(cell=cell, values={}, directory=Path(), store=None)  # pyright: ignore[reportArgumentType]
        rows = [{"prompt_id": f"p{number}", "reward": reward} for number, reward in enumerate(rewards)]
        object.__setattr__(result, "table", rows)
        made.append(result)
    return made


def level(mean: float, *, seeds: int = 2, turned: bool = False) -> Results:
    """Return results whose prompts differ by SPREAD around a mean."""
    spread = SPREAD[::-1] if turned else SPREAD
    return results([[mean + 0.1 * seed + more for more in spread] for seed in range(seeds)])


def moved(found: Results, *, factor: float, shift: float) -> Results:
    return results([[factor * row["reward"] + shift for row in result.rows(EVALUATION)] for result in found])


def test_the_ceiling_recovers_all_and_the_floor_nothing_in_every_resample():
    floor, ceiling = level(0.0), level(2.0, turned=True)
    for student, share in ((ceiling, 1.0), (floor, 0.0)):
        found = recovered(student, floor=floor, ceiling=ceiling)
        assert found is not None
        assert (found.mean, found.low, found.high, found.seeds) == (share, share, share, 2)


def test_a_share_is_the_quotient_of_the_means_and_lies_in_its_interval():
    found = recovered(level(1.5, turned=True), floor=level(0.0), ceiling=level(2.0))
    assert found is not None
    assert found.mean == pytest.approx(0.75)
    assert found.low < 0.75 < found.high
    assert share_text(found).startswith("0.75 [")


@pytest.mark.parametrize("mean", [3.0, -1.0])
def test_a_share_above_1_or_below_0_is_kept(mean):
    found = recovered(level(mean), floor=level(0.0), ceiling=level(2.0))
    assert found is not None
    assert found.mean == pytest.approx(mean / 2)
    assert not 0 <= found.low <= 1
    assert not 0 <= found.high <= 1


@pytest.mark.parametrize("ceiling", [0.0, 0.02, -2.0])
def test_without_a_sure_gap_there_is_no_share(ceiling):
    found = recovered(level(1.0), floor=level(0.0), ceiling=level(ceiling, turned=True))
    assert found is None
    assert share_text(found) == "undefined"


def test_a_resample_without_a_gap_has_no_share():
    # One in 256 resamples draws the first prompt alone.
    found = recovered(
        results([[0.0, 0.0, 1.0, 1.0]]), floor=results([[0.0] * 4]), ceiling=results([[0.0, 1.0, 1.0, 1.0]])
    )
    assert found is not None
    assert (found.low, found.mean, found.high) == (0.0, pytest.approx(2 / 3), 1.0)


def test_one_prompt_is_no_spread_and_no_results_have_no_share():
    found = recovered(results([[1.0]]), floor=results([[0.0]]), ceiling=results([[4.0]]))
    assert found is not None
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)
    assert recovered([], floor=[], ceiling=[]) is None


def test_terms_are_paired_by_prompt_whatever_their_order_and_a_missing_prompt_is_left_out():
    student, floor, ceiling = level(1.0, turned=True), level(0.0), level(2.0)
    whole = recovered(student, floor=floor, ceiling=ceiling)
    for result in floor:
        object.__setattr__(result, "table", result.rows(EVALUATION)[::-1])
    assert recovered(student, floor=floor, ceiling=ceiling) == whole
    object.__setattr__(ceiling[0], "table", ceiling[0].rows(EVALUATION)[1:])
    less = recovered(student, floor=floor, ceiling=ceiling)
    assert less is not None
    assert less != whole


def test_pairing_narrows_the_interval():
    floor, ceiling = level(0.0), level(2.0)
    paired, other = (recovered(level(1.0, turned=turned), floor=floor, ceiling=ceiling) for turned in (False, True))
    assert paired is not None
    assert other is not None
    assert paired.high - paired.low == pytest.approx(0)
    assert other.high - other.low > 0.05


def test_the_spread_between_seeds_is_in_the_interval():
    def with_gains(*gains: float) -> Results:
        return results([[gain + more for more in SPREAD] for gain in gains])

    floor, ceiling = with_gains(0, 0, 0), with_gains(2, 2, 2)
    same, apart = (recovered(with_gains(*gains), floor=floor, ceiling=ceiling) for gains in ((1, 1, 1), (0, 1, 2)))
    assert same is not None
    assert apart is not None
    assert same.mean == pytest.approx(apart.mean)
    assert same.high - same.low == pytest.approx(0)
    assert (apart.low, apart.high) == pytest.approx((0.0, 1.0), abs=0.2)


def test_the_interval_covers_the_true_share_about_as_often_as_it_says(monkeypatch):
    import numpy as np

    monkeypatch.setattr(resampling, "RESAMPLES", 300)
    rng, covered, times = np.random.default_rng(0), 0, 200
    for _ in range(times):
        common = rng.normal(size=(1, 60))
        student, floor, ceiling = (
            results((common + mean + 0.5 * rng.normal(size=(1, 60))).tolist()) for mean in (0.6, 0.0, 1.0)
        )
        found = recovered(student, floor=floor, ceiling=ceiling)
        assert found is not None
        covered += found.low <= 0.6 <= found.high
    assert 0.88 <= covered / times <= 0.99


def test_terms_of_different_seeds_and_other_prompts_are_refused():
    one, other = level(1.0), level(1.0)[::-1]
    with pytest.raises(ValueError, match="terms of different seeds: seed=0, seed=1, seed=0"):
        recovered(one, floor=other, ceiling=one)
    with pytest.raises(ValueError, match="shorter"):
        recovered(one, floor=one[:1], ceiling=one)
    for result in other:
        object.__setattr__(result, "table", [{"prompt_id": "another", "reward": 1.0}])
    with pytest.raises(ValueError, match="no prompt in common"):
        recovered(one, floor=other[::-1], ceiling=one)


REWARDS = st.lists(st.floats(-5, 5), min_size=6, max_size=6)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(REWARDS, min_size=3, max_size=3),
    st.floats(0.1, 10),
    st.floats(-20, 20),
)
def test_an_affine_change_of_the_reward_changes_no_share(values, factor, shift):
    student, floor, ceiling = (results([row[:3], row[3:]]) for row in values)
    before = recovered(student, floor=floor, ceiling=ceiling)
    terms = [moved(found, factor=factor, shift=shift) for found in (student, floor, ceiling)]
    after = recovered(terms[0], floor=terms[1], ceiling=terms[2])
    if before is None or after is None:
        # At the very edge of a sure gap rounding decides.
        assert before is after or _edge(before or after)
        return
    for name in ("mean", "low", "high"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-4, abs=1e-4) or _edge(before)


def _edge(found) -> bool:
    return max(abs(found.low), abs(found.high)) > 1e4


@settings(deadline=None, max_examples=40)
@given(REWARDS, REWARDS, st.floats(0.05, 3), st.floats(-1, 2))
def test_a_student_on_the_line_between_floor_and_ceiling_recovers_its_place_on_it(lows, noise, gap, share):
    highs = [low + gap + 0.01 * abs(more) for low, more in zip(lows, noise, strict=True)]
    between = [low + share * (high - low) for low, high in zip(lows, highs, strict=True)]
    found = recovered(results([between]), floor=results([lows]), ceiling=results([highs]))
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((share,) * 3, abs=1e-6)


def test_rows_are_read_from_what_an_evaluation_wrote(tmp_path):
    made: list[Result] = []
    for number, reward in enumerate((1.0, 0.0, 2.0)):
        directory = tmp_path / str(number)
        directory.mkdir()
        write_rows(directory / EVALUATION, [{"prompt_id": f"p{n}", "reward": reward + n} for n in range(4)])
        cell = Cell(stage=Number(), axes={"seed": 0})
        made.append(Result(cell=cell, values={}, directory=directory, store=None))  # pyright: ignore[reportArgumentType]
    found = recovered(made[:1], floor=made[1:2], ceiling=made[2:])
    assert found is not None
    assert found.mean == 0.5


def test_the_same_resamples_are_drawn_every_time():
    student, floor, ceiling = level(1.0, turned=True), level(0.0), level(2.0, turned=True)
    first, second = (recovered(student, floor=floor, ceiling=ceiling) for _ in range(2))
    assert first == second
    assert recovered(student, floor=floor, ceiling=ceiling, seed=1) != first
