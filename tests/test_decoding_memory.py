"""The slot engine and memory: slots from what is free, prompts in chunks, going on when memory runs out."""

from typing import Any

import pytest
import torch
from reference_decoding import STOP_IDS, ragged_prompts, reference_greedy, tiny_pair

from cong.decoding import Decoding, Request, SlotEngine
from cong.decoding.backbone import Backbone, prefill_groups
from cong.decoding.cache import GROWTH, SlotCache
from cong.decoding.sizing import USABLE, architecture, slots_that_fit
from cong.decoding.state import SlotState
from cong.models.memory import MOST_SLOTS, SCORE_COPIES, state_bytes

DECODING = Decoding(max_new_tokens=10, repetition_penalty=1.2)


def requests_for(prompts):
    return [Request(row_id=str(index), prompt_token_ids=prompt, alpha=0.3) for index, prompt in enumerate(prompts)]


def engine_for(pair, **settings):
    return SlotEngine(post=pair[0], pre=pair[1], tokenizer=None, decoding=DECODING, **settings)


def texts(completions):
    return {completion.row_id: (completion.token_ids, completion.finish_reason) for completion in completions}


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("qwen2", {}),
        ("llama", {}),
        ("mistral", {"sliding_window": 6}),
        ("gemma3_text", {"head_dim": 8, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}),
    ],
)
def test_a_prompt_in_chunks_decodes_like_the_reference(family, overrides):
    pair = tiny_pair(family, **overrides)
    prompts = ragged_prompts(8, seed=4)
    assert max(len(prompt) for prompt in prompts) > 10
    for completion in engine_for(pair, slots=4, prefill_tokens=5).decode(requests_for(prompts)):
        expected, *logprobs = reference_greedy(
            *pair,
            prompts[int(completion.row_id)],
            alpha=0.3,
            max_new_tokens=10,
            stop_ids=STOP_IDS,
            penalty=1.2,
        )
        assert completion.token_ids == tuple(token for token in expected if token not in STOP_IDS)
        assert [completion.logprob_post, completion.logprob_pre] == pytest.approx(logprobs, abs=1e-4)


def test_a_prefill_pass_never_has_more_tokens_than_allowed():
    prompts = [(slot, (7,) * length) for slot, length in enumerate([3, 40, 5, 5, 6, 90, 1, 20])]
    groups = list(prefill_groups(prompts, most_tokens=32))
    assert sorted(slot for group in groups for slot, _ in group) == list(range(8))
    assert all(len(group) == 1 or len(group) * len(group[-1][1]) <= 32 for group in groups)
    assert max(len(group) for group in groups) > 1


@pytest.mark.parametrize("failing", [{1}, {4, 5}, {0, 1, 2, 9}])
def test_running_out_of_memory_in_a_step_halves_the_slots_and_changes_no_text(monkeypatch, failing):
    pair, requests = tiny_pair("qwen2"), requests_for(ragged_prompts(30, seed=6))
    expected = texts(engine_for(pair, slots=16).decode(requests))
    calls, step = iter(range(10**6)), Backbone.step

    def scarce(self, *args: Any, **kwargs: Any):
        if next(calls) in failing:
            raise torch.OutOfMemoryError("no memory left")
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Backbone, "step", scarce)
    engine = engine_for(pair, slots=16)
    got = list(engine.decode(requests))
    assert len(got) == len(requests)
    assert texts(got) == expected
    assert engine.stats.back_offs == len(failing)
    assert engine.slots == 16 >> len(failing)


def test_a_prefill_that_does_not_fit_is_tried_again_in_smaller_passes(monkeypatch):
    pair, requests = tiny_pair("llama"), requests_for(ragged_prompts(20, seed=8))
    expected = texts(engine_for(pair, slots=8).decode(requests))
    prefill = Backbone.prefill

    def scarce(self, tokens_PL, slots_P, *, chunk):
        if chunk > 1024:
            raise torch.OutOfMemoryError("no memory left")
        prefill(self, tokens_PL, slots_P, chunk=chunk)

    monkeypatch.setattr(Backbone, "prefill", scarce)
    engine = engine_for(pair, slots=8, prefill_tokens=4096)
    assert texts(engine.decode(requests)) == expected
    assert (engine.slots, engine.prefill_tokens) == (2, 1024)


def test_when_not_even_one_slot_fits_the_error_is_raised(monkeypatch):
    def full(self, *args: Any, **kwargs: Any):
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(Backbone, "step", full)
    with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
        list(engine_for(tiny_pair("qwen2"), slots=4).decode(requests_for(ragged_prompts(3))))


def test_the_bytes_of_a_slot_are_those_of_the_tensors():
    pair = tiny_pair("qwen2")
    engine = engine_for(pair, slots=6)
    list(engine.decode(requests_for(ragged_prompts(6))))
    cache = engine._backbones[0].cache
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.slot_layers)  # pyright: ignore
    assert held == 6 * cache.capacity * architecture(pair[0].config).cache_bytes_per_token(itemsize=4)


def test_a_cache_never_outgrows_by_more_than_half_a_thousand_tokens_what_it_was_asked_for():
    cache = SlotCache(layers=1, slots=1, capacity=64, limit=9000)
    for asked in (65, 100, 700, 2560, 2600, 8999, 9000):
        cache.reserve(asked)
        assert asked <= cache.capacity <= min(asked + GROWTH, 9000)


def test_the_slots_that_fit_use_the_memory_and_no_more():
    configs, itemsize, tokens = [model.config for model in tiny_pair("llama")], 2, 2560
    free = 2**28
    slots = slots_that_fit(
        configs, decoding=Decoding(max_new_tokens=2048), tokens_per_slot=tokens, itemsize=itemsize, free_bytes=free
    )
    slot = sum(tokens * architecture(config).cache_bytes_per_token(itemsize=itemsize) for config in configs)
    slot += sum(SCORE_COPIES * 4 * config.vocab_size for config in configs)
    assert 1 < slots < MOST_SLOTS
    assert slots * slot <= USABLE * free < (slots + 1) * (slot + 100_000)
    small = {"decoding": DECODING, "tokens_per_slot": 64, "itemsize": 4}
    assert slots_that_fit(configs, free_bytes=0, **small) == 1
    assert slots_that_fit(configs, free_bytes=2**40, **small) == MOST_SLOTS


def test_without_a_number_an_engine_on_a_cpu_has_64_slots():
    assert engine_for(tiny_pair("qwen2")).slots == 64


def test_state_of_a_row_costs_what_the_arithmetic_says():
    decoding = Decoding(max_new_tokens=50, temperature=1.0, repetition_penalty=1.2)

    def held(slots: int) -> int:
        device, stops = torch.device("cpu"), frozenset[int]()
        state = SlotState(slots=slots, models=3, vocab_size=97, decoding=decoding, stop_token_ids=stops, device=device)
        tables = (state.tokens_ST, state.logprob_STM, state.uniform_ST, state.seen_SV)
        return sum(table.nbytes for table in tables if table is not None)

    assert held(5) == 5 * state_bytes(new_tokens=50, vocabulary=97, models=3)
