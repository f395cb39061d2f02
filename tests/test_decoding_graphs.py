"""Decoding steps as captured graphs: what can be shown without a GPU, with a recorder in the place of CUDA's."""

import pytest
import torch
from reference_decoding import ragged_prompts, tiny_pair
from transformers import AutoConfig, AutoModelForCausalLM

from cong.decoding import Decoding, Request, SlotEngine
from cong.decoding.bands import Band
from cong.decoding.graphs import COLUMNS, GraphedSteps, rows_bucket
from cong.decoding.step import Step


class Recorder:
    """Captures as CUDA does: capturing runs nothing, and a replay runs what was captured, with its shapes."""

    def __init__(self):
        self.captured = 0

    def __call__(self, step):
        self.captured += 1
        return step


def test_graphed_steps_give_the_same_text_as_plain_ones():
    post, pre = tiny_pair("qwen2")
    requests = [
        Request(row_id=str(index), prompt_token_ids=prompt, alpha=0.4, seed=index)
        for index, prompt in enumerate(ragged_prompts(40, seed=3))
    ]
    decoding = Decoding(max_new_tokens=20, temperature=0.9, repetition_penalty=1.2)
    engine = SlotEngine(post=post, pre=pre, tokenizer=None, decoding=decoding, slots=12)
    plain = {completion.row_id: completion for completion in engine.decode(requests)}
    recorder = Recorder()
    engine._graphs = GraphedSteps(engine._step, slots=12, capture=recorder)
    graphed = {completion.row_id: completion for completion in engine.decode(requests)}
    assert {row_id: c.token_ids for row_id, c in graphed.items()} == {i: c.token_ids for i, c in plain.items()}
    for row_id, completion in graphed.items():
        assert completion.logprob_post == pytest.approx(plain[row_id].logprob_post, abs=1e-4)
    assert 1 <= recorder.captured <= 5


def test_a_graph_is_captured_at_the_second_use_of_its_shape_and_dropped_when_the_cache_grows():
    ran, recorder = [], Recorder()

    def step(bands):
        ran.extend(tuple(band) for band in bands)

    graphed = GraphedSteps(step, slots=48, capture=recorder)  # pyright: ignore[reportArgumentType]
    for rows, used, captured in ((40, 10, 0), (33, 200, 1), (48, 256, 1), (5, 256, 1), (40, 257, 1), (40, 300, 2)):
        graphed(rows=rows, used=used, capacity=400)
        assert recorder.captured == captured
    assert ran == [(48, COLUMNS)] * 3 + [(8, COLUMNS)] + [(48, 400)] * 2
    graphed(rows=40, used=10, capacity=800)
    assert recorder.captured == 2
    graphed(rows=40, used=10, capacity=800)
    assert recorder.captured == 3


def test_rows_are_rounded_up_to_powers_of_two_and_never_beyond_the_slots():
    assert [rows_bucket(rows, slots=48) for rows in (1, 2, 3, 9, 32, 33, 48)] == [1, 2, 4, 16, 32, 48, 48]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_step_asks_nothing_back_from_the_device(temperature):
    """On the meta device every value that the host wants to know is an error."""
    config = AutoConfig.for_model(
        "qwen2", hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=97, max_position_embeddings=128,
    )  # fmt: skip
    with torch.device("meta"):
        post, pre = (AutoModelForCausalLM.from_config(config).eval() for _ in range(2))
    decoding = Decoding(max_new_tokens=8, temperature=temperature, repetition_penalty=1.2, top_p=0.9, min_p=0.1)
    engine = SlotEngine(post=post, pre=pre, tokenizer=None, decoding=decoding, slots=4)
    assert isinstance(engine._step, Step)
    with torch.inference_mode():
        engine._step([Band(rows=4, columns=16)])
    with pytest.raises((NotImplementedError, RuntimeError), match=r"meta|item"):
        engine._state.active_S.tolist()


def test_graphs_are_refused_where_there_is_no_cuda():
    post, pre = tiny_pair("llama")
    with pytest.raises(ValueError, match="cuda_graphs is set, but the model lies on cpu"):
        SlotEngine(post=post, pre=pre, tokenizer=None, decoding=Decoding(max_new_tokens=2), cuda_graphs=True)
