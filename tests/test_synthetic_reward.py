"""The exact reward, case by case."""

import random

import pytest

from cong.synthetic.reward import BEST, exact_reward
from cong.synthetic.world import World, make_documents, make_prompts, read_prompt

WORLD = World()
PROMPT = next(p for p in WORLD.prompts if p.startswith("name two") and " and four " in p)
FIRST, SECOND = (WORLD.right[part.subject] for part in read_prompt(PROMPT))
FIRST_MYTHS, SECOND_MYTHS = (WORLD.myths[part.subject] for part in read_prompt(PROMPT))


def score(response: str, *, finished: bool = True) -> float:
    return exact_reward(WORLD, prompt=PROMPT, response=response, finished=finished)


def text(first, second, *, opener: str = "sure", closing: str = "done") -> str:
    return " ".join([opener, *first, ";", *second, closing])


def test_a_perfect_response_gets_three_points():
    assert score(text(FIRST[:2], SECOND[:4])) == BEST == 3.0


def test_the_order_of_the_items_does_not_matter():
    assert score(text(FIRST[1::-1], SECOND[3::-1])) == BEST


def test_manners_are_worth_half_a_point_each():
    assert score(text(FIRST[:2], SECOND[:4], opener="hmm")) == 2.5
    assert score(text(FIRST[:2], SECOND[:4], opener="maybe", closing="")) == 2.0


def test_a_response_without_an_end_loses_a_point():
    assert score(text(FIRST[:2], SECOND[:4]), finished=False) == 2.0


def test_a_myth_costs_its_share_and_half_of_it():
    assert score(text([FIRST[0], FIRST_MYTHS[0]], SECOND[:4])) == pytest.approx(3.0 - 1.5 / 2)
    assert score(text(FIRST_MYTHS[:2], SECOND_MYTHS[:4])) == pytest.approx(1.0 - 0.5 - 0.5)


def test_a_missing_item_costs_more_than_a_wrong_one():
    missing = score(text(FIRST[:2], SECOND[:3]))
    assert missing == pytest.approx(3.0 - 2 / 4)
    assert missing < score(text(FIRST[:2], [*SECOND[:3], SECOND_MYTHS[0]]))


def test_repeated_and_superfluous_items_count_as_wrong():
    assert score(text([FIRST[0], FIRST[0]], SECOND[:4])) == score(text([FIRST[0], FIRST_MYTHS[0]], SECOND[:4]))
    assert score(text(FIRST[:3], SECOND[:4])) == pytest.approx(3.0 - 0.5 / 2)


def test_items_in_the_wrong_part_do_not_count():
    assert score(text(SECOND[:2], SECOND[:4])) == score(text(FIRST_MYTHS[:2], SECOND[:4]))


def test_a_response_without_the_mark_answers_the_first_part_only():
    assert score(" ".join(["sure", *FIRST[:2], "done"])) == pytest.approx(0.5 + 0.5 + 1.0 - 1.0)


def test_rambling_costs_no_more_than_silence():
    assert score(text(FIRST_MYTHS * 50, SECOND_MYTHS * 50)) == pytest.approx(1.0 - 2.0)
    assert score("") == -2.0


@pytest.mark.parametrize("response", ["", " ", ";", "; ; ;", "done", "sure", "\x00\ufffd", "sure ; done", "🦜" * 500])
def test_junk_never_raises_and_stays_in_range(response):
    for finished in (True, False):
        assert -3.0 <= score(response, finished=finished) <= 0.0


def test_random_words_never_raise_and_stay_in_range():
    rng = random.Random(0)
    words = ["sure", "hmm", ";", "done", *FIRST, *SECOND, "name", "\n", "<|im_end|>"]
    for _ in range(500):
        response = " ".join(rng.choices(words, k=rng.randrange(20)))
        assert -3.0 <= score(response, finished=rng.random() < 0.5) <= BEST


def test_a_prompt_that_is_none_is_refused():
    with pytest.raises(ValueError, match="not of the form"):
        exact_reward(WORLD, prompt="what is love", response="sure", finished=True)


def test_a_prompt_of_a_larger_world_is_refused():
    prompt = World(categories=12, attributes=8).prompts[-1]
    with pytest.raises(ValueError, match="knows no"):
        exact_reward(WORLD, prompt=prompt, response="sure", finished=True)


def test_the_corpus_is_on_average_far_from_perfect_yet_sometimes_perfect():
    documents = make_documents(WORLD, count=2000, seed=0)
    scores = [exact_reward(WORLD, prompt=d.prompt, response=d.response, finished=True) for d in documents]
    assert max(scores) == BEST
    assert sum(scores) / len(scores) < 1.0


def test_every_prompt_has_a_perfect_response():
    for row in make_prompts(WORLD, split="heldout", count=100, seed=0):
        answers = [WORLD.right[part.subject][: part.count] for part in read_prompt(row["prompt"])]
        assert exact_reward(WORLD, prompt=row["prompt"], response=text(*answers), finished=True) == BEST
