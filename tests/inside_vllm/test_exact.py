"""The pair inside vLLM against the cache-free reference, token for token in float32."""

from typing import Any

import pytest
import torch
from engines import ALPHAS, WIDE, decode, differing, directories, engine, pair, requests_for, start
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

from cong.decoding import Completion, Decoding, Request, SlotEngine, load_model, teacher_forced_logprobs

PROMPTS = ragged_prompts(48)
LONG = [(21, 22, 23, 24) * 16 + prompt for prompt in ragged_prompts(24, seed=2)]
"""Prompts with 64 tokens in common: two blocks of the cache."""


@pytest.mark.parametrize("scores", ["formula", "official"])
@pytest.mark.parametrize("penalty", [1.0, 1.2])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_greedy_tokens_equal_the_cache_free_reference(family, penalty, scores):
    requests = requests_for(PROMPTS)
    got = decode(engine(family), requests, repetition_penalty=penalty, scores=scores)
    assert differing(family, requests, got, penalty=penalty, scores=scores) == []
    assert {request.alpha for request in requests} == set(ALPHAS)
    assert {completion.finish_reason for completion in got.values()} == {"stop", "length"}


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_prefix_caching_changes_nothing(family, monkeypatch):
    held = engine(family, enable_prefix_caching=True)
    hits = _watch_hits(held, monkeypatch)
    requests = requests_for(LONG)
    for penalty in (1.0, 1.2):
        got = decode(held, requests, repetition_penalty=penalty)
        assert differing(family, requests, got, penalty=penalty) == []
    assert sum(hits) >= 64 * len(LONG)


def _watch_hits(held: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    manager, hits = _scheduler(held).kv_cache_manager, list[int]()
    found = manager.get_computed_blocks

    def counted(request):
        blocks = found(request)
        hits.append(blocks[1])
        return blocks

    monkeypatch.setattr(manager, "get_computed_blocks", counted)
    return hits


def _scheduler(held: Any) -> Any:
    return held.llm.llm_engine.engine_core.engine_core.scheduler


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_chunked_prefill_changes_nothing(family):
    held = engine(family, max_num_batched_tokens=16, enable_prefix_caching=False)
    assert _scheduler(held).scheduler_config.enable_chunked_prefill
    requests = requests_for(LONG)
    assert min(len(request.prompt_token_ids) for request in requests) > 4 * 16
    got = decode(held, requests, repetition_penalty=1.2)
    assert differing(family, requests, got, penalty=1.2) == []


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_preemption_changes_nothing(family, monkeypatch):
    held = engine(family, num_gpu_blocks_override=9, enable_prefix_caching=False)
    scheduler, preempted = _scheduler(held), list[str]()
    preempt = scheduler._preempt_request

    def counted(request, *args, **kwargs):
        preempted.append(request.request_id)
        return preempt(request, *args, **kwargs)

    monkeypatch.setattr(scheduler, "_preempt_request", counted)
    # Eight rows of one block each fill the eight blocks; every row then needs a second one.
    requests = [
        Request(row_id=f"r{i}", prompt_token_ids=LONG[i][-24:], alpha=ALPHAS[i % 4], max_new_tokens=40)
        for i in range(len(LONG))
    ]
    for penalty in (1.0, 1.2):
        got = decode(held, requests, repetition_penalty=penalty, max_new_tokens=40)
        assert differing(family, requests, got, penalty=penalty) == []
    assert len(preempted) >= 5
    preempted.clear()
    sampled = {"temperature": 1.0, "repetition_penalty": 1.1, "max_new_tokens": 40}
    assert tokens_of(decode(held, requests, **sampled)) == tokens_of(decode(engine(family), requests, **sampled))
    assert preempted


def tokens_of(rows: dict[str, Completion]) -> dict[str, tuple[int, ...]]:
    return {row_id: completion.token_ids for row_id, completion in rows.items()}


def by_slots(family: str, requests: list[Request], **settings: Any) -> dict[str, Completion]:
    post, pre = pair(family)
    given: dict[str, Any] = {"max_new_tokens": 24, **settings}
    decoding = Decoding(**given)
    engine = SlotEngine(post=post, pre=pre, tokenizer=None, decoding=decoding, slots=8)
    return {completion.row_id: completion for completion in engine.decode(requests)}


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9, "repetition_penalty": 1.2}, {"min_p": 0.05}])
def test_sampled_text_is_that_of_the_slot_engine_at_every_batch_size(settings):
    requests = [
        Request(row_id=f"r{i}", prompt_token_ids=prompt, alpha=0.5, seed=(i + 1) * 2**58 + i)
        for i, prompt in enumerate(ragged_prompts(24, seed=9))
    ]
    sampling = {"temperature": 1.0, **settings}
    expected = tokens_of(by_slots("llama", requests, **sampling))
    assert len(set(expected.values())) > 10
    for slots in (1, 3, 8, 64):
        held = engine("llama", slots=slots)
        assert tokens_of(decode(held, requests, **sampling)) == expected
        assert tokens_of(decode(held, requests[::-1], **sampling)) == expected
    reseeded = [Request(row_id=r.row_id, prompt_token_ids=r.prompt_token_ids, alpha=0.5, seed=5) for r in requests]
    assert tokens_of(decode(engine("llama"), reseeded, **sampling)) != expected


def test_sampling_with_chunked_prefill_draws_the_same():
    requests = [Request(row_id=f"r{i}", prompt_token_ids=prompt, alpha=0.3, seed=i) for i, prompt in enumerate(LONG)]
    held = engine("qwen2", max_num_batched_tokens=16, enable_prefix_caching=False)
    sampled = decode(held, requests, temperature=1.0, repetition_penalty=1.1)
    assert tokens_of(sampled) == tokens_of(by_slots("qwen2", requests, temperature=1.0, repetition_penalty=1.1))


def test_the_first_sampled_token_follows_softmax_of_the_scores():
    post, pre = tiny_pair("qwen2", **(WIDE | {"initializer_range": 0.1}))
    held = start(*directories("qwen2", initializer_range=0.1), slots=256)
    prompt, draws = (30, 40, 50), 20_000
    held.use(Decoding(max_new_tokens=1, temperature=1.0, pruning_threshold=0.3))
    counts = torch.zeros(97)
    requests = (Request(row_id=str(i), prompt_token_ids=prompt, alpha=0.5, seed=i) for i in range(draws))
    for completion in held.decode(requests):
        counts[completion.token_ids[0] if completion.token_ids else STOP_IDS[0]] += 1
    logprobs = [next_logprobs(model, list(prompt))[1].tolist() for model in (post, pre)]
    scores = torch.tensor(reference_scores(*logprobs, alpha=0.5, threshold=0.3, official=False))
    # A completion does not say which stop token it was.
    scores[STOP_IDS[0]] = scores[STOP_IDS].logsumexp(0)
    scores[STOP_IDS[1:]] = -torch.inf
    probs = scores.double().softmax(0)
    head = probs > 0
    assert head.sum() >= 5
    assert counts.sum() == draws
    assert counts[~head].sum() == 0
    assert chisquare(counts[head].numpy(), (probs[head] * draws).numpy()).pvalue > 0.001


def test_logprobs_agree_with_a_teacher_forced_pass():
    requests = [
        Request(row_id=f"r{i}", prompt_token_ids=prompt, alpha=0.3, seed=i)
        for i, prompt in enumerate(ragged_prompts(40, seed=11))
    ]
    got = decode(engine("qwen2"), requests, temperature=1.0, repetition_penalty=1.2)
    unstopped = [request for request in requests if got[request.row_id].finish_reason == "length"]
    assert len(unstopped) >= 3
    for path, name in zip(directories("qwen2"), ("logprob_post", "logprob_pre"), strict=True):
        sums = teacher_forced_logprobs(
            load_model(path, dtype="float32", device="cpu"),
            prompts=[request.prompt_token_ids for request in unstopped],
            completions=[got[request.row_id].token_ids for request in unstopped],
            batch_size=4,
        )
        assert [getattr(got[r.row_id], name) for r in unstopped] == pytest.approx(sums, abs=1e-4)


@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_a_single_model_equals_the_reference(penalty):
    requests = requests_for(PROMPTS[:24])
    got = decode(engine("qwen2", single=True), requests, repetition_penalty=penalty)
    for request in requests:
        assert request.max_new_tokens is not None
        tokens, logprob_post, _ = reference_greedy(
            pair("qwen2")[0], None, request.prompt_token_ids, alpha=1.0, max_new_tokens=request.max_new_tokens,
            stop_ids=STOP_IDS, penalty=penalty,
        )  # fmt: skip
        completion = got[request.row_id]
        assert completion.token_ids == tuple(tokens[:-1] if tokens[-1] in STOP_IDS else tokens)
        assert completion.logprob_post == pytest.approx(logprob_post, abs=1e-4)
        assert completion.logprob_pre is None


def test_tied_embeddings_change_nothing():
    tied = {"tie_word_embeddings": True}
    held = start(*directories("qwen2", **tied))
    requests = requests_for(PROMPTS[:16])
    expect_reference(pair("qwen2", **tied), requests, decode(held, requests, repetition_penalty=1.2))


def test_vocabularies_padded_to_different_sizes_change_nothing(tmp_path):
    models = [tiny_model("qwen2", seed=seed, vocab_size=size, **WIDE) for seed, size in ((0, 128), (1, 97))]
    for model, name in zip(models, ("large", "small"), strict=True):
        model.save_pretrained(tmp_path / name)
    requests = requests_for(PROMPTS[:12])
    held = start(tmp_path / "large", tmp_path / "small")
    expect_reference((models[0], models[1]), requests, decode(held, requests, repetition_penalty=1.2))
    held = start(tmp_path / "small", tmp_path / "large")
    expect_reference((models[1], models[0]), requests, decode(held, requests, repetition_penalty=1.2))


def expect_reference(models: tuple[Any, Any], requests: list[Request], got: dict[str, Completion]) -> None:
    for request in requests:
        assert request.max_new_tokens is not None
        tokens, logprob_post, logprob_pre = reference_greedy(
            *models, request.prompt_token_ids, alpha=request.alpha, max_new_tokens=request.max_new_tokens,
            stop_ids=STOP_IDS, penalty=1.2,
        )  # fmt: skip
        completion = got[request.row_id]
        assert completion.token_ids == tuple(tokens[:-1] if tokens[-1] in STOP_IDS else tokens)
        assert completion.logprob_post == pytest.approx(logprob_post, abs=1e-4)
        assert completion.logprob_pre == pytest.approx(logprob_pre, abs=1e-4)


def test_compilation_changes_nothing():
    requests = requests_for(PROMPTS)
    got = decode(engine("qwen2", eager=False), requests, repetition_penalty=1.2)
    assert differing("qwen2", requests, got, penalty=1.2) == []


def test_two_processes_of_tensor_parallelism_change_nothing():
    requests = requests_for(PROMPTS)
    got = decode(engine("qwen2", tensor_parallel=2), requests, repetition_penalty=1.2)
    assert differing("qwen2", requests, got, penalty=1.2) == []


def test_requests_that_cannot_be_decoded_stop_nobody_and_an_abandoned_stream_leaves_nothing():
    held = engine("qwen2")
    good = requests_for(PROMPTS[:5])
    bad = [
        Request(row_id="empty", prompt_token_ids=()),
        Request(row_id="long", prompt_token_ids=(30,) * 128),
        Request(row_id="unknown", prompt_token_ids=(30, 97)),
        Request(row_id="alpha", prompt_token_ids=(30,), alpha=1.5),
    ]
    got = decode(held, [*bad, *good])
    assert {row_id for row_id, completion in got.items() if completion.error} == {request.row_id for request in bad}
    next(iter(held.decode(good)))
    assert not held.llm.llm_engine.has_unfinished_requests()
    assert differing("qwen2", good, decode(held, good)) == []
