"""Final answers: where they stand in a solution, and which are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cong.evaluation.answers import final_answer, same_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("16 - 3 = 13 so 9 * 2 = 18\n#### 18", "18"),
        ("carefully : 7 + 5 = 1 2 ; 12 - 3 = 9 #### 9", "9"),
        ("first #### 3\nno, #### 4", "4"),
        (r"Hence \boxed{\frac{1}{2}} is it.", r"\frac{1}{2}"),
        (r"\boxed{1}, or rather \boxed{x^{2}+1}", "x^{2}+1"),
        ("The answer is 1,234.", "1,234"),
        ("So 3 apples and 4 pears make 7 fruits", "7"),
        ("it falls to -2.5 degrees", "-2.5"),
        ("I do not know", None),
        ("####", None),
        (r"\boxed{unclosed", None),
    ],
)
def test_the_final_answer_is_found_where_it_stands(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("1,015", "1015"),
        ("$18.00$", "18"),
        (r"\frac{1}{2}", "0.5"),
        (r"\dfrac12", "1/2"),
        (r"\left( 3, 4 \right)", "(3,4)"),
        (r"12\text{ cm}", "12"),
        ("50\\%", "50"),
        ("X + 1", "x+1"),
        (r"90^\circ", "90"),
    ],
)
def test_answers_that_are_written_differently_are_the_same(answer, reference):
    assert same_answer(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"), [("18", "81"), (None, "3"), ("-2", "2"), ("1/2", "1/3"), ("x", "y"), ("", "0")]
)
def test_other_answers_are_not(answer, reference):
    assert not same_answer(answer, reference)


@given(st.integers(-(10**9), 10**9))
def test_every_whole_number_is_found_and_equals_itself(number):
    assert same_answer(final_answer(f"hence it is\n#### {number:,}"), str(number))
    assert same_answer(final_answer(f"The answer is {number}."), str(number))
    assert not same_answer(str(number), str(number + 1))
