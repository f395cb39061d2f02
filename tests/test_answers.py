"""Final answers: where they stand in a solution, and which are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cong.data.answers import final_answer, same_answer


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


UNIT, WORD = r"12\mathrm{~cm}^2", r"\textbf{even}"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("#### The total is = 40 apples.", "40"),
        ("#### **Final Answer: -3.5 degrees**", "-3.5"),
        ("#### \u22127", "-7"),
        ("#### €1,250 (in total)", "1250"),
        ("#### 3 hours and 20 minutes", "3"),
        (r"#### \(\frac{3}{4}\)", "0.75"),
        ("#### (2, 5)", "(2,5)"),
        ("#### 1) Count\n3 + 4 = 7\n#### 2) Pay\nThe answer is **21**, not 20.", "21"),
        ("#### 16 eggs are laid\n16 - 7 = 9\nSo the answer is 9.", "9"),
        ("#### 9 eggs\n\nAsk me again, I know 100 more.", "9"),
        ("##### Answer\n\n$\\boxed{41}$", "41"),
        ("The final answer is $[2,5)$. I hope it is correct.", "[2,5)"),
        ("Therefore the answer is (C).", r"\text{(C)}"),
        (r"\boxed 7", "7"),
        (r"\boxed{8}, cut off in \boxed{9", "8"),
        ("she keeps 12, which is what was asked", "12"),
        ("from 10-4 eggs remain", "4"),
    ],
)
def test_a_right_answer_is_right_however_it_is_dressed(text, reference):
    assert same_answer(final_answer(text), reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"\text{north}", "NORTH"),
        (r"\mathrm{odd}", r"\text{odd}"),
        (UNIT, "12"),
        (r"\text{7 litres}", "7"),
        (r"2{,}500{,}000", "2500000"),
        (r"1\,024", "1024"),
        ("y=4", "4"),
        (r"\sqrt2", r"\sqrt{2}"),
        ("(D)", "D"),
        (r"\$3.50", "3.5"),
        (r"180^{\circ}", "180"),
    ],
)
def test_what_a_text_says_counts_and_how_it_is_set_does_not(answer, reference):
    assert same_answer(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"\text{odd}", r"\text{even}"),
        (WORD, r"\textbf{odd}"),
        (r"\mathrm{J}", r"\mathrm{K}"),
        (r"\mbox{no}", ""),
        (r"3\text{ or }4", "3"),
        (r"\mathbf{i}", r"\mathbf{j}"),
        ("2x", "2"),
        ("1,2", "12"),
    ],
)
def test_other_words_are_other_answers(answer, reference):
    assert not same_answer(answer, reference)


@given(st.integers(-(10**9), 10**9))
def test_every_whole_number_is_found_and_equals_itself(number):
    assert same_answer(final_answer(f"hence it is\n#### {number:,}"), str(number))
    assert same_answer(final_answer(f"The answer is {number}."), str(number))
    assert not same_answer(str(number), str(number + 1))
