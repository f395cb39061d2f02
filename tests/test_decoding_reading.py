"""What a decoding step reads of the cache: bands of rows on a CPU, a row's own columns on CUDA."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_decoding import STOP_IDS, ragged_prompts, reference_greedy, tiny_pair

from cong.decoding import Decoding, Request, SlotEngine, attention, slots, varlen
from cong.decoding.bands import Band, bands, moves
from cong.models.architecture import Architecture

SHAPE = Architecture(
    layers=1, width=32, heads=4, kv_heads=2, head_width=8, inner=64, vocabulary=97, tied=True, positions=64
)


def by_rows(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, seqused_k
):  # fmt: skip
    """What PyTorch says that its `varlen_attn` computes, a row at a time."""
    outputs = []
    for row, length in enumerate(seqused_k.tolist()):
        assert length <= max_k
        own = slice(int(cu_seq_q[row]), int(cu_seq_q[row + 1]))
        first = int(cu_seq_k[row]) + (max(0, length - 1 - window_size[0]) if window_size[0] >= 0 else 0)
        seen = slice(first, int(cu_seq_k[row]) + length)
        parts = [states.transpose(0, 1).unsqueeze(0) for states in (query[own], key[seen], value[seen])]
        output = torch.nn.functional.scaled_dot_product_attention(*parts, scale=scale, enable_gqa=True)
        outputs.append(output.squeeze(0).transpose(0, 1))
    return torch.cat(outputs)


occupied = st.dictionaries(st.integers(0, 23), st.integers(0, 90), max_size=24)


@given(cached=occupied, width=st.integers(1, 24))
def test_moves_keep_every_row_and_leave_free_slots_in_the_last_band_that_has_rows(cached, width):
    found = moves(cached, slots=24, width=width)
    sources, targets = [source for source, _ in found], [target for _, target in found]
    assert len(set(sources)) == len(sources)
    assert len(set(targets)) == len(targets)
    assert all(source // width > target // width for source, target in found)
    left = {slot: length for slot, length in cached.items() if slot not in sources}
    assert not set(left) & set(targets)
    after = left | {target: cached[source] for source, target in found}
    assert sorted(after.values()) == sorted(cached.values())
    last = max((slot // width for slot in after), default=0)
    assert all(slot in after for slot in range(last * width))


def test_the_longest_row_of_the_next_band_moves_up():
    assert moves({0: 80, 2: 30, 3: 60, 4: 20}, slots=6, width=2) == [(3, 1), (4, 3)]


@given(cached=occupied, width=st.integers(1, 24))
def test_bands_hold_every_row_and_its_next_token(cached, width):
    rows = max(cached, default=0) + 1
    found = bands(cached, rows=rows, width=width)
    assert sum(band.rows for band in found) == rows
    reach = [band.columns for band in found for _ in range(band.rows)]
    assert all(length < reach[slot] for slot, length in cached.items())
    assert all(max(cached.get(slot, 0) for slot in range(rows)) + 1 >= columns for columns in reach)


def decoded(post, pre, *, prompts, alpha=0.4, limits=(3, 17, 9, 24)):
    requests = [
        Request(row_id=str(i), prompt_token_ids=prompt, alpha=alpha, max_new_tokens=limits[i % len(limits)])
        for i, prompt in enumerate(prompts)
    ]
    decoding = Decoding(max_new_tokens=24, repetition_penalty=1.2)
    engine = SlotEngine(post=post, pre=pre, tokenizer=None, decoding=decoding, slots=8)
    found = {completion.row_id: completion for completion in engine.decode(requests)}
    for request in requests:
        tokens, logprob_post, logprob_pre = reference_greedy(
            post, pre, request.prompt_token_ids, alpha=alpha, max_new_tokens=request.max_new_tokens,
            stop_ids=STOP_IDS, penalty=1.2,
        )  # fmt: skip
        got = found[request.row_id]
        assert got.token_ids == tuple(tokens[:-1] if tokens[-1] in STOP_IDS else tokens)
        assert got.logprob_post == pytest.approx(logprob_post, abs=1e-4)
        assert got.logprob_pre == pytest.approx(logprob_pre, abs=1e-4)
    return engine


@pytest.mark.parametrize("width", [1, 2, 3])
def test_rows_that_move_between_bands_equal_the_reference(monkeypatch, width):
    moved = []
    monkeypatch.setattr(slots, "band_width", lambda slots: width)
    monkeypatch.setattr(slots, "moves", lambda *args, **kwargs: moved.append(moves(*args, **kwargs)) or moved[-1])
    decoded(*tiny_pair("qwen2"), prompts=ragged_prompts(50, seed=4))
    assert sum(map(len, moved)) > 20


@settings(deadline=None)
@given(data=st.data())
def test_a_row_reads_its_own_columns_wherever_it_lies_in_the_cache(data):
    shared, group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    rows, capacity, window = data.draw(st.integers(1, 5)), data.draw(st.integers(2, 12)), data.draw(st.integers(1, 12))
    used = data.draw(st.integers(1, capacity))
    lengths = data.draw(st.lists(st.integers(1, used), min_size=rows, max_size=rows))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    query = torch.randn(rows, shared * group, 1, 8)
    # What lies behind the rows would show in the result.
    key, value = (torch.randn(rows + 1, shared, capacity, 8)[:rows, :, :used] for _ in range(2))
    length_B = torch.tensor(lengths, dtype=torch.int32)
    column_T = torch.arange(used)
    for seen, given_window in (
        (column_T < length_B[:, None], None),
        ((column_T < length_B[:, None]) & (column_T >= length_B[:, None] - window), window),
    ):
        expected = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen[:, None, None], scale=0.3, enable_gqa=True
        )
        found = varlen.row_attention(
            query, key, value, length_B=length_B, scaling=0.3, window=given_window, attend=by_rows
        )
        assert torch.allclose(found, expected.transpose(1, 2), atol=1e-6)


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("qwen2", {}),
        ("llama", {}),
        ("mistral", {"sliding_window": 6}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
        ("gemma3_text", {"head_dim": 8, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}),
    ],
)
def test_an_engine_that_reads_own_columns_only_equals_the_reference(monkeypatch, family, overrides):
    calls = []
    monkeypatch.setattr(slots, "reads_own_columns", lambda model: True)
    monkeypatch.setattr(
        attention, "kernel", lambda: lambda *args, **kwargs: calls.append(1) or by_rows(*args, **kwargs)
    )
    engine = decoded(*tiny_pair(family, **overrides), prompts=ragged_prompts(20, seed=5))
    assert len(calls) == 2 * 2 * engine.stats.steps


def test_a_kernel_is_used_only_where_it_gives_what_attention_gives():
    def forgets_lengths(query, key, value, *args, seqused_k, **kwargs):
        return by_rows(query, key, value, *args, seqused_k=torch.full_like(seqused_k, 64), **kwargs)

    where = {"dtype": torch.float32, "device": torch.device("cpu")}
    assert varlen.largest_error(SHAPE, **where, attend=by_rows) < 1e-6
    assert varlen.largest_error(SHAPE, **where, attend=forgets_lengths) > 10 * varlen.TOLERANCE
    assert not varlen.agrees(SHAPE, **where)


def test_a_missing_kernel_is_said_and_does_no_harm(monkeypatch, caplog):
    def none():
        raise ImportError("No module named 'torch.nn.attention.varlen'")

    monkeypatch.setattr(varlen, "kernel", none)
    with caplog.at_level(logging.WARNING):
        assert not varlen.agrees(SHAPE, dtype=torch.float16, device=torch.device("cuda:7"))
    assert "reads unused columns too: No module named" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernel_of_this_device_gives_what_attention_gives():
    assert varlen.agrees(SHAPE, dtype=torch.bfloat16, device=torch.device("cuda"))


def test_a_band_is_named_by_what_it_holds():
    assert bands({0: 80, 1: 60, 3: 20}, rows=4, width=2) == (Band(rows=2, columns=81), Band(rows=2, columns=21))
