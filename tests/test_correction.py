"""Correction and coverage: conditional shares of right and wrong answers, on rows of chosen rewards."""

import pytest
from test_recovery import results

from cong.experiment import Results
from cong.report.correction import Correction, correction, gain_left_out, usual_reward


def of(student: list[list[float]], weak: list[list[float]]) -> Correction:
    return correction(results(student), results(weak), right_above=0.5)


def test_shares_are_those_counted_by_hand():
    # Weak wrong on five prompts, of which the student is right on three; weak right on three, the student wrong on one.
    found = of([[1, 1, 0, 1, 0, 1, 1, 0]], [[0, 0, 0, 1, 1, 1, 0, 0]])
    assert found.corrected is not None
    assert found.spoiled is not None
    assert found.corrected.mean == pytest.approx(3 / 5)
    assert found.spoiled.mean == pytest.approx(1 / 3)
    assert (found.student_right, found.weak_right) == (5 / 8, 3 / 8)
    for share in (found.corrected, found.spoiled):
        assert 0 <= share.low < share.mean < share.high <= 1


def test_a_student_that_answers_as_its_teacher_corrects_and_spoils_nothing():
    rewards = [[1.0, 0, 0, 1], [0.0, 0, 1, 1]]
    found = of(rewards, rewards)
    for share in (found.corrected, found.spoiled):
        assert share is not None
        assert (share.mean, share.low, share.high, share.seeds) == (0, 0, 0, 2)


def test_without_a_wrong_answer_nothing_can_be_corrected():
    found = of([[1, 0, 1]], [[1, 1, 1]])
    assert found.corrected is None
    assert found.spoiled is not None
    assert found.spoiled.mean == pytest.approx(1 / 3)
    assert of([[1, 0, 1]], [[0, 0, 0]]).spoiled is None


def test_seeds_and_prompts_are_pooled_and_two_seeds_widen_the_interval():
    one = of([[1, 1, 0, 0]], [[0, 0, 0, 0]])
    apart = of([[1, 1, 1, 1], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 2)
    assert one.corrected is not None
    assert apart.corrected is not None
    assert one.corrected.mean == apart.corrected.mean == 0.5
    assert (apart.corrected.low, apart.corrected.high) == (0, 1)


def test_above_the_median_of_the_weak_model_half_of_its_responses_are_right():
    weak, student = results([[-3.0, 0.1, 0.2, 7.0]]), results([[0.3, 0.3, 0.0, 0.0]])
    above = usual_reward(weak)
    assert above == pytest.approx(0.15)
    found = correction(student, weak, right_above=above)
    assert (found.weak_right, found.student_right) == (0.5, 0.5)
    assert found.corrected is not None
    assert found.corrected.mean == 1


def pair(student: list[list[float]], weak: list[list[float]]) -> tuple[Results, Results]:
    return results(student), results(weak)


def test_the_gain_left_out_is_the_difference_of_two_gains():
    heldout, trained = pair([[2.0, 3, 2.5]], [[1.0, 1, 1]]), pair([[5.0, 6]], [[1.0, 3]])
    found = gain_left_out(heldout, trained)
    assert found.mean == pytest.approx(1.5 - 3.5)
    assert found.low < found.mean < found.high
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_over_seeds_the_gain_left_out_has_students_interval():
    heldout = pair([[1.0, 1], [2.0, 2], [4.0, 4]], [[0.0, 0]] * 3)
    trained = pair([[1.0], [1.0], [1.0]], [[0.0]] * 3)
    found = gain_left_out(heldout, trained)
    assert (found.mean, found.seeds) == (pytest.approx(4 / 3), 3)
    # Gains 0, 1 and 3: a standard error of sqrt(7/9), times 4.303.
    assert found.high - found.mean == pytest.approx(4.3027 * (7 / 9) ** 0.5, rel=1e-4)


def test_results_of_other_seeds_are_refused():
    with pytest.raises(ValueError, match="terms of different seeds"):
        correction(results([[1.0], [1.0]])[::-1], results([[1.0], [1.0]]), right_above=0.5)
