"""From scores to tokens: repetition penalty, sampling filters, seeded choice."""

import math
from typing import Any

import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from cong.decoding import Decoding
from cong.decoding.choose import choose_tokens, penalize_repetition, row_uniforms

UNIFORMS = torch.linspace(0, 1, 4001, dtype=torch.float64)[:-1]


def support(scores_V, **settings):
    """All tokens that some uniform number selects, and the share of the numbers that select each."""
    scores_BV = scores_V.expand(len(UNIFORMS), -1)
    tokens = choose_tokens(scores_BV, decoding=Decoding(max_new_tokens=1, **settings), uniform_B=UNIFORMS)
    return torch.bincount(tokens, minlength=len(scores_V)) / len(UNIFORMS)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.7},
        {"temperature": 1.3, "top_p": 0.8},
        {"temperature": 0.7, "min_p": 0.1},
        {"temperature": 1.0, "top_p": 0.9, "min_p": 0.05},
        {"temperature": 1.0, "top_p": 0.001},
        {"temperature": 0.7, "top_k": 5},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "top_k": 100},
        {"temperature": 1.3, "top_k": 12, "top_p": 0.8, "min_p": 0.1},
    ],
)
def test_shares_follow_the_warpers_of_hugging_face_in_their_order(settings):
    torch.manual_seed(0)
    scores: Any = 2 * torch.randn(1, 30)
    ids: Any = torch.zeros(1, 1, dtype=torch.long)
    warped: Any = TemperatureLogitsWarper(settings["temperature"])(ids, scores)
    if "top_k" in settings:
        warped = TopKLogitsWarper(settings["top_k"])(ids, warped)
    if "top_p" in settings:
        warped = TopPLogitsWarper(settings["top_p"])(ids, warped)
    if "min_p" in settings:
        warped = MinPLogitsWarper(settings["min_p"])(ids, warped)
    expected = warped.softmax(-1)[0]
    # Each cumulative boundary falls between two of the evenly spaced numbers.
    torch.testing.assert_close(support(scores[0], **settings), expected, rtol=0, atol=1.01 / len(UNIFORMS))


def test_the_penalty_equals_that_of_hugging_face():
    torch.manual_seed(0)
    scores: Any = torch.randn(5, 40)
    ids: Any = torch.randint(0, 40, (5, 12))
    scores[:, ::7] = -math.inf
    seen = torch.zeros(5, 40, dtype=torch.bool).scatter(1, ids, True)
    expected = RepetitionPenaltyLogitsProcessor(1.2)(ids, scores.clone())
    assert torch.equal(penalize_repetition(scores, seen_BV=seen, penalty=1.2), expected)


def test_a_token_of_probability_zero_is_never_chosen():
    scores = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]])
    decoding = Decoding(max_new_tokens=1, temperature=1.0)
    for uniform, token in ((0.0, 1), (0.4999, 1), (0.5001, 3), (1 - 2**-53, 3)):
        chosen = choose_tokens(scores, decoding=decoding, uniform_B=torch.tensor([uniform], dtype=torch.float64))
        assert chosen.item() == token


def test_a_longer_stream_of_uniforms_starts_like_a_shorter_one():
    assert torch.equal(row_uniforms(7, 100)[:10], row_uniforms(7, 10))


@pytest.mark.parametrize("start", [0, 1, 4, 90])
def test_a_stream_can_be_gone_on_with_where_it_was_left(start):
    assert torch.equal(row_uniforms(7, 100)[start:], row_uniforms(7, 100 - start, start=start))


def test_seeds_that_differ_in_high_bits_give_different_streams():
    seeds = [1, 1 + 2**32, 1 + 2**64, -1]
    assert len({tuple(row_uniforms(seed, 4).tolist()) for seed in seeds}) == len(seeds)


def test_temperature_zero_takes_the_first_of_the_best_tokens():
    scores = torch.tensor([[0.0, 2.0, 2.0], [5.0, -math.inf, 1.0]])
    assert choose_tokens(scores, decoding=Decoding(max_new_tokens=1), uniform_B=None).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_k", 0),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("pruning_threshold", 1.1),
        ("scores", "other"),
        ("stop_strings", ("",)),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_value(name, value):
    settings: dict[str, Any] = {"max_new_tokens": 1} | {name: value}
    with pytest.raises(ValueError, match=name) as refusal:
        Decoding(**settings)
    assert repr(value) in str(refusal.value)
