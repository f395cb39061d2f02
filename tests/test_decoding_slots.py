"""The slot engine against the cache-free reference."""

from functools import cache
from typing import Any

import pytest
import torch
from reference_decoding import (
    STOP_IDS,
    next_logprobs,
    ragged_prompts,
    reference_greedy,
    reference_scores,
    tiny_model,
    tiny_pair,
)
from scipy.stats import chisquare

from cong.decoding import Decoding, Request, SlotEngine, teacher_forced_logprobs

ALPHAS = (0.0, 0.3, 0.5, 1.0)
PAIRS = cache(tiny_pair)


def requests_for(prompts, *, alphas=ALPHAS):
    """One request per prompt with alphas in turn and ragged limits."""
    return [
        Request(row_id=f"r{i}", prompt_token_ids=prompt, alpha=alphas[i % len(alphas)], max_new_tokens=4 + 7 * i % 15)
        for i, prompt in enumerate(prompts)
    ]


def decode(post, pre, requests, *, slots=8, steps_per_sync=None, tokenizer=None, max_context=None, **settings):
    defaults: dict[str, Any] = {"max_new_tokens": 24}
    decoding = Decoding(**(defaults | settings))
    engine = SlotEngine(
        post=post,
        pre=pre,
        tokenizer=tokenizer,
        decoding=decoding,
        slots=slots,
        max_context=max_context,
        steps_per_sync=steps_per_sync,
    )
    return {completion.row_id: completion for completion in engine.decode(requests)}, engine


@cache
def expected_for(family, penalty, scores):
    post, pre = PAIRS(family)
    requests = requests_for(ragged_prompts(70))
    return requests, {
        request.row_id: reference_greedy(
            post,
            pre,
            request.prompt_token_ids,
            alpha=request.alpha,
            max_new_tokens=request.max_new_tokens,
            stop_ids=STOP_IDS,
            penalty=penalty,
            official=scores == "official",
        )
        for request in requests
    }


def assert_equals_reference(completion, expected):
    tokens, logprob_post, logprob_pre = expected
    stopped = tokens[-1] in STOP_IDS
    assert completion.token_ids == tuple(tokens[:-1] if stopped else tokens)
    assert completion.finish_reason == ("stop" if stopped else "length")
    assert completion.num_tokens == len(tokens)
    assert completion.logprob_post == pytest.approx(logprob_post, abs=1e-4)
    assert completion.logprob_pre is None or completion.logprob_pre == pytest.approx(logprob_pre, abs=1e-4)


@pytest.mark.parametrize("slots", [1, 3, 8, 64])
@pytest.mark.parametrize("scores", ["formula", "official"])
@pytest.mark.parametrize("penalty", [1.0, 1.2])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_greedy_tokens_equal_the_cache_free_reference(family, penalty, scores, slots):
    requests, expected = expected_for(family, penalty, scores)
    requests = requests[: 20 * slots]
    got, _ = decode(*PAIRS(family), requests, slots=slots, repetition_penalty=penalty, scores=scores)
    assert got.keys() == {request.row_id for request in requests}
    for row_id, completion in got.items():
        assert_equals_reference(completion, expected[row_id])


def test_the_reference_rows_end_in_many_ways():
    requests, expected = expected_for("qwen2", 1.2, "formula")
    lengths = {len(tokens) for tokens, _, _ in expected.values() if tokens[-1] in STOP_IDS}
    at_limit = [r for r in requests if len(expected[r.row_id][0]) == r.max_new_tokens]
    assert len(lengths) >= 4
    assert at_limit


def test_the_two_kinds_of_scores_differ_under_a_penalty_only():
    for penalty, differ in ((1.0, False), (1.2, True)):
        formula, official = (expected_for("llama", penalty, name)[1] for name in ("formula", "official"))
        assert (formula != official) == differ


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("qwen3", {"head_dim": 8}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
        ("mistral", {"sliding_window": 6}),
        ("phi", {"num_key_value_heads": 4}),
        ("phi3", {"sliding_window": 6}),
        ("gemma", {"head_dim": 8}),
        ("gemma2", {"head_dim": 8, "sliding_window": 6, "attn_implementation": "eager"}),
        ("gemma3_text", {"head_dim": 8, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}),
    ],
)
def test_other_model_families_equal_the_reference(family, overrides):
    post, pre = tiny_pair(family, **overrides)
    requests = requests_for(ragged_prompts(9, seed=3))
    got, _ = decode(post, pre, requests, slots=4, repetition_penalty=1.2)
    for request in requests:
        expected = reference_greedy(
            post,
            pre,
            request.prompt_token_ids,
            alpha=request.alpha,
            max_new_tokens=request.max_new_tokens,
            stop_ids=STOP_IDS,
            penalty=1.2,
        )
        assert_equals_reference(got[request.row_id], expected)


def test_a_single_model_decodes_like_hugging_face_generate():
    post, _ = PAIRS("qwen2")
    requests = requests_for(ragged_prompts(12, seed=5))
    got, _ = decode(post, None, requests, repetition_penalty=1.2)
    for request in requests:
        prompt = torch.tensor([request.prompt_token_ids])
        output = post.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=request.max_new_tokens,
            repetition_penalty=1.2,
        )
        tokens = output[0, prompt.shape[1] :].tolist()
        completion = got[request.row_id]
        assert completion.token_ids == tuple(token for token in tokens if token not in STOP_IDS)
        assert completion.num_tokens == len(tokens)
        assert completion.logprob_pre is None


@pytest.mark.parametrize("steps_per_sync", [2, 7])
def test_looking_at_the_flags_less_often_changes_nothing(steps_per_sync):
    requests, expected = expected_for("llama", 1.2, "formula")
    got, _ = decode(*PAIRS("llama"), requests, slots=6, steps_per_sync=steps_per_sync, repetition_penalty=1.2)
    for row_id, completion in got.items():
        assert_equals_reference(completion, expected[row_id])


def test_several_alphas_of_one_prompt_share_its_prefill():
    post, pre = PAIRS("qwen2")
    prompts = ragged_prompts(6, seed=7)
    requests = [
        Request(row_id=f"{i}/{alpha}", prompt_token_ids=prompt, alpha=alpha)
        for i, prompt in enumerate(prompts)
        for alpha in ALPHAS
    ]
    got, engine = decode(post, pre, requests, slots=24)
    assert engine.stats.prefilled_tokens == sum(len(prompt) - 1 for prompt in prompts)
    assert engine.stats.shared_prefills == sum(len(ALPHAS) - 1 for prompt in prompts if len(prompt) > 1)
    for request in requests:
        alone, _ = decode(post, pre, [request], slots=1)
        assert got[request.row_id].token_ids == alone[request.row_id].token_ids


def test_sampled_text_does_not_depend_on_the_number_of_slots():
    post, pre = PAIRS("llama")
    requests = [
        Request(row_id=f"r{i}", prompt_token_ids=prompt, alpha=0.5, seed=1000 + i)
        for i, prompt in enumerate(ragged_prompts(20, seed=9))
    ]
    settings: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95, "repetition_penalty": 1.1}
    results = [decode(post, pre, requests, slots=slots, **settings)[0] for slots in (1, 3, 8, 64)]
    results.append(decode(post, pre, requests[::-1], slots=5, **settings)[0])
    tokens = [{row_id: completion.token_ids for row_id, completion in result.items()} for result in results]
    assert all(other == tokens[0] for other in tokens)
    assert len(set(tokens[0].values())) > 10
    reseeded = [Request(row_id=r.row_id, prompt_token_ids=r.prompt_token_ids, alpha=0.5, seed=5) for r in requests]
    assert {i: c.token_ids for i, c in decode(post, pre, reseeded, **settings)[0].items()} != tokens[0]


def test_the_first_sampled_token_follows_softmax_of_the_scores():
    post, pre = tiny_pair("qwen2", initializer_range=0.1)
    prompt, draws = (30, 40, 50), 20_000
    stream = (Request(row_id=str(i), prompt_token_ids=prompt, alpha=0.5, seed=i) for i in range(draws))
    counts = torch.zeros(97)
    engine = SlotEngine(
        post=post,
        pre=pre,
        tokenizer=None,
        decoding=Decoding(max_new_tokens=1, temperature=1.0, pruning_threshold=0.3),
        slots=500,
    )
    for completion in engine.decode(stream):
        token = completion.token_ids[0] if completion.token_ids else None
        counts[STOP_IDS[0] if token is None else token] += 1
    logprobs = [next_logprobs(model, list(prompt))[1].tolist() for model in (post, pre)]
    scores = torch.tensor(reference_scores(*logprobs, alpha=0.5, threshold=0.3, official=False))
    scores_merged = scores.clone()
    scores_merged[STOP_IDS[0]] = scores[STOP_IDS].logsumexp(0)  # a completion does not say which stop token it was
    scores_merged[STOP_IDS[1:]] = -torch.inf
    probs = scores_merged.double().softmax(0)
    head = probs > 0
    assert head.sum() >= 5
    assert counts[~head].sum() == 0
    assert chisquare(counts[head].numpy(), (probs[head] * draws).numpy()).pvalue > 0.001


def test_logprobs_agree_with_a_teacher_forced_pass():
    post, pre = PAIRS("qwen2")
    requests = [
        Request(row_id=f"r{i}", prompt_token_ids=prompt, alpha=0.3, seed=i)
        for i, prompt in enumerate(ragged_prompts(25, seed=11))
    ]
    got, _ = decode(post, pre, requests, temperature=1.0, repetition_penalty=1.2)
    unstopped = [request for request in requests if got[request.row_id].finish_reason == "length"]
    assert unstopped
    for model, name in ((post, "logprob_post"), (pre, "logprob_pre")):
        sums = teacher_forced_logprobs(
            model,
            prompts=[request.prompt_token_ids for request in unstopped],
            completions=[got[request.row_id].token_ids for request in unstopped],
            batch_size=4,
        )
        assert [getattr(got[r.row_id], name) for r in unstopped] == pytest.approx(sums, abs=1e-4)


def test_a_pair_with_padded_vocabularies_of_different_sizes_equals_the_reference():
    post, pre = tiny_model("qwen2", seed=0, vocab_size=128), tiny_model("qwen2", seed=1, vocab_size=97)
    requests = requests_for(ragged_prompts(8, seed=15))
    for pair in ((post, pre), (pre, post)):
        got, _ = decode(*pair, requests, repetition_penalty=1.2)
        for request in requests:
            expected = reference_greedy(
                *pair,
                request.prompt_token_ids,
                alpha=request.alpha,
                max_new_tokens=request.max_new_tokens,
                stop_ids=STOP_IDS,
                penalty=1.2,
            )
            assert_equals_reference(got[request.row_id], expected)
