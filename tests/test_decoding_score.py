"""The score F of contrastive decoding."""

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from reference_decoding import reference_scores

from cong.decoding import contrastive_scores, log_probs
from cong.decoding.score import head_mask

finite = st.floats(min_value=-12, max_value=12, width=32)
ALPHAS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0])
THRESHOLDS = st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0])


@st.composite
def logit_pairs(draw, elements=finite):
    size = draw(st.integers(min_value=2, max_value=24))
    rows = [draw(st.lists(elements, min_size=size, max_size=size)) for _ in range(2)]
    return torch.tensor(rows[0])[None], torch.tensor(rows[1])[None]


def scores_of(logits, *, alpha, threshold=0.1, scores: Any = "formula"):
    post, pre = (log_probs(values) for values in logits)
    return contrastive_scores(post, pre, alpha=alpha, pruning_threshold=threshold, scores=scores)


@given(logit_pairs(), THRESHOLDS)
def test_alpha_one_is_plain_decoding_within_the_head(logits, threshold):
    result = scores_of(logits, alpha=1.0, threshold=threshold)
    post = log_probs(logits[0])
    head = head_mask(post, pruning_threshold=threshold)
    assert torch.equal(result[head], post[head])
    assert (result[~head] == -math.inf).all()


@given(logit_pairs(), ALPHAS)
def test_equal_models_give_plain_decoding_scaled_by_alpha(logits, alpha):
    post = log_probs(logits[0])
    result = contrastive_scores(post, post, alpha=alpha, pruning_threshold=0.1)
    head = head_mask(post, pruning_threshold=0.1)
    torch.testing.assert_close(result[head], alpha * post[head], rtol=1e-5, atol=1e-5)


@given(logit_pairs(), st.tuples(st.integers(0, 10), st.integers(0, 10)))
def test_the_implicit_reward_of_the_greedy_token_never_falls_as_alpha_falls(logits, tenths):
    low, high = min(tenths) / 10, max(tenths) / 10
    assume(low < high)
    post, pre = (log_probs(values)[0] for values in logits)
    reward = post - pre
    at_low, at_high = (scores_of(logits, alpha=alpha)[0].argmax() for alpha in (low, high))
    # Rounding of F by e moves the proof's inequalities by 2e / (high - low) <= 20e, with e near 3e-6 here.
    assert reward[at_low] >= reward[at_high] - 1e-4


def test_the_expected_implicit_reward_can_fall_as_alpha_falls():
    pre = log_probs(torch.tensor([[2.0, 1.0, 0.0]]))
    post = log_probs(2 * pre)
    expected = {}
    for alpha in (0.0, 0.5, 1.0):
        probs = contrastive_scores(post, pre, alpha=alpha, pruning_threshold=0.0).softmax(-1)
        expected[alpha] = (probs * (post - pre)).sum().item()
    assert expected[0.0] < expected[0.5] < expected[1.0]


@given(logit_pairs(), ALPHAS, THRESHOLDS)
def test_the_head_always_holds_the_likeliest_token(logits, alpha, threshold):
    assert scores_of(logits, alpha=alpha, threshold=threshold)[0, logits[0][0].argmax()] > -math.inf


@given(
    logit_pairs(elements=st.one_of(finite, st.just(-math.inf))),
    ALPHAS,
    THRESHOLDS,
    st.sampled_from(["formula", "official"]),
)
def test_infinitely_negative_logits_give_no_nan(logits, alpha, threshold, scores):
    assume(all(values.isfinite().any() for values in logits))
    result = scores_of(logits, alpha=alpha, threshold=threshold, scores=scores)
    assert not result.isnan().any()
    assert not result.softmax(-1).isnan().any()
    assert (result[logits[0] == -math.inf] == -math.inf).all()


@given(logit_pairs(), ALPHAS)
def test_official_scores_are_the_formula_shifted_by_one_constant(logits, alpha):
    formula, official = (scores_of(logits, alpha=alpha, scores=name) for name in ("formula", "official"))
    post, pre = (log_probs(values) for values in logits)
    head = head_mask(post, pruning_threshold=0.1)
    shift = (1 - alpha) * torch.where(head, pre, torch.tensor(-1e-3)).logsumexp(-1)
    torch.testing.assert_close(official[head], (formula + shift)[head], rtol=1e-5, atol=1e-5)
    assert torch.equal(official == -math.inf, formula == -math.inf)


@pytest.mark.parametrize("scores", ["formula", "official"])
@given(logits=logit_pairs(), alpha=ALPHAS)
def test_scores_equal_the_reference_loop(logits, alpha, scores):
    post, pre = (log_probs(values)[0].tolist() for values in logits)
    floor = max(post) + math.log(0.1)
    assume(all(abs(value - floor) > 1e-5 for value in post))  # in or out of the head by more than rounding
    expected = reference_scores(post, pre, alpha=alpha, threshold=0.1, official=scores == "official")
    result = scores_of(logits, alpha=alpha, scores=scores)[0]
    torch.testing.assert_close(result, torch.tensor(expected), rtol=1e-5, atol=1e-5)


@given(logit_pairs(), st.sampled_from([0.01, 0.1, 0.5, 1.0]))
def test_the_head_equals_that_of_the_sorting_filter(logits, threshold):
    post = log_probs(logits[0])
    ordered = post.sort(dim=-1, descending=True).values
    floor = torch.minimum(ordered[:, 0], ordered.max(dim=-1).values + math.log(threshold))
    assert torch.equal(head_mask(post, pruning_threshold=threshold), post >= floor[:, None])


def test_one_alpha_per_row_equals_separate_calls():
    torch.manual_seed(0)
    logits = torch.randn(4, 50), torch.randn(4, 50)
    alphas = torch.tensor([0.0, 0.3, 0.5, 1.0])
    together = scores_of(logits, alpha=alphas)
    for row, alpha in enumerate(alphas.tolist()):
        alone = scores_of([values[row : row + 1] for values in logits], alpha=alpha)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-6, atol=1e-6)


def test_half_precision_logits_are_scored_in_float32():
    torch.manual_seed(0)
    logits = [torch.randn(2, 50).bfloat16() for _ in range(2)]
    result = scores_of(logits, alpha=0.3)
    assert result.dtype == torch.float32
    assert torch.equal(result, scores_of([values.float() for values in logits], alpha=0.3))
