"""The slot engine under load: refill, streaming, bad requests, refusals."""

import itertools
import random

import pytest
from reference_decoding import ragged_prompts, tiny_model, tiny_pair

from cong.decoding import Decoding, Request, SlotEngine


def requests_for(count, *, seed):
    return [
        Request(row_id=f"r{i}", prompt_token_ids=prompt, alpha=0.3, max_new_tokens=4 + 7 * i % 15)
        for i, prompt in enumerate(ragged_prompts(count, seed=seed))
    ]


def decode(post, pre, requests, *, slots=8, max_new_tokens=24, max_context=None):
    decoding = Decoding(max_new_tokens=max_new_tokens)
    engine = SlotEngine(post=post, pre=pre, tokenizer=None, decoding=decoding, slots=slots, max_context=max_context)
    return {completion.row_id: completion for completion in engine.decode(requests)}, engine


def test_refill_keeps_nine_in_ten_slot_steps_useful_on_a_skewed_load():
    post, pre = tiny_pair("llama")
    post.generation_config.eos_token_id = None
    rng = random.Random(0)
    limits = [min(60, 2 + int(rng.expovariate(0.1))) for _ in range(300)]
    requests = [
        Request(row_id=str(i), prompt_token_ids=prompt, max_new_tokens=limit)
        for i, (prompt, limit) in enumerate(zip(ragged_prompts(300, seed=13), limits, strict=True))
    ]
    _, engine = decode(post, pre, requests, slots=32, max_new_tokens=60)
    stats = engine.stats
    assert max(limits) > 4 * sum(limits) / len(limits)
    assert stats.useful_slot_steps == sum(limits)
    assert stats.queued_slot_steps > 2000
    assert stats.queued_useful_slot_steps >= 0.9 * stats.queued_slot_steps


def test_bad_requests_are_answered_with_their_reason_and_the_others_go_on():
    post, pre = tiny_pair("qwen2")
    bad = {
        "empty": (Request(row_id="empty", prompt_token_ids=()), "empty"),
        "long": (Request(row_id="long", prompt_token_ids=(20,) * 64), "64 tokens"),
        "outside": (Request(row_id="outside", prompt_token_ids=(20, 97)), "97"),
        "negative": (Request(row_id="negative", prompt_token_ids=(-5, 20)), "-5"),
        "alpha": (Request(row_id="alpha", prompt_token_ids=(20,), alpha=1.2), "1.2"),
        "nan": (Request(row_id="nan", prompt_token_ids=(20,), alpha=float("nan")), "nan"),
        "limit": (Request(row_id="limit", prompt_token_ids=(20,), max_new_tokens=99), "99"),
        "zero": (Request(row_id="zero", prompt_token_ids=(20,), max_new_tokens=0), "0"),
    }
    good = requests_for(10, seed=17)
    pairs = itertools.zip_longest([request for request, _ in bad.values()], good)
    mixed = [request for pair in pairs for request in pair if request is not None]
    got, _ = decode(post, pre, mixed, slots=3, max_context=64)
    alone, _ = decode(post, pre, good, slots=3, max_context=64)
    for row_id, (_, reason) in bad.items():
        assert got[row_id].finish_reason == "error"
        assert reason in (got[row_id].error or "")
    assert got.keys() == bad.keys() | alone.keys()
    for row_id, completion in alone.items():
        assert (got[row_id].token_ids, got[row_id].finish_reason) == (completion.token_ids, completion.finish_reason)


def test_a_response_ends_where_the_context_ends():
    post, pre = tiny_pair("qwen2")
    post.generation_config.eos_token_id = None
    got, _ = decode(post, pre, [Request(row_id="r", prompt_token_ids=(20,) * 30)], max_context=40)
    assert (got["r"].num_tokens, got["r"].finish_reason) == (10, "length")


def test_rows_stream_out_of_an_endless_source_and_the_engine_can_start_again():
    post, pre = tiny_pair("llama")
    prompts = ragged_prompts(50, seed=19)
    engine = SlotEngine(post=post, pre=pre, tokenizer=None, decoding=Decoding(max_new_tokens=12), slots=4)
    endless = (Request(row_id=str(i), prompt_token_ids=prompts[i % 50], alpha=0.3) for i in itertools.count())
    first = list(itertools.islice(engine.decode(endless), 30))
    assert int(next(endless).row_id) <= 30 + 4 + 1
    requests = [Request(row_id=str(i), prompt_token_ids=prompts[i], alpha=0.3) for i in range(30)]
    again = {completion.row_id: completion.token_ids for completion in engine.decode(requests)}
    for completion in first:
        assert again.get(completion.row_id, completion.token_ids) == completion.token_ids


def test_an_engine_refuses_what_it_cannot_decode():
    post, pre = tiny_pair("qwen2")
    decoding = Decoding(max_new_tokens=4)
    with pytest.raises(ValueError, match="slots is 0"):
        SlotEngine(post=post, pre=pre, tokenizer=None, decoding=decoding, slots=0)
    with pytest.raises(ValueError, match=r"max_context is 129.*128"):
        SlotEngine(post=post, pre=pre, tokenizer=None, decoding=decoding, max_context=129)
    bloom = tiny_model("bloom", seed=0, n_head=4, n_layer=1)
    bloom.config.max_position_embeddings = 64
    with pytest.raises(ValueError, match="position_ids"):
        SlotEngine(post=bloom, tokenizer=None, decoding=decoding)
