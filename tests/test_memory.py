"""The memory arithmetic: against real tensors, as a property, and for the profiles that are shipped."""

import dataclasses
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_decoding import ragged_prompts, tiny_pair
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cong.decoding import Decoding, Request, SlotEngine, logprobs, teacher_forced_logprobs
from cong.decoding.sizing import architecture
from cong.models import memory
from cong.models.architecture import PUBLISHED, Architecture
from cong.scales import CHECKPOINTS
from cong.scales.small import SMALL_CHECKPOINTS
from cong.synthetic.models import SIZES
from cong.synthetic.models import architecture as tiny_architecture
from cong.training.auxconf import confidence_loss

QWEN_3B = PUBLISHED["Qwen/Qwen2.5-3B-Instruct"]

architectures = st.builds(
    Architecture,
    layers=st.integers(1, 80),
    width=st.integers(8, 8192),
    heads=st.integers(1, 64),
    kv_heads=st.integers(1, 16),
    head_width=st.integers(1, 128),
    inner=st.integers(8, 30000),
    vocabulary=st.integers(8, 200_000),
    tied=st.booleans(),
    positions=st.integers(16, 131_072),
    biased=st.booleans(),
)
itemsizes = st.sampled_from([2, 4])
zeros = st.sampled_from(["none", "zero2", "zero3", "zero3-offload"])


def hugging_face(model: Architecture):
    """Return the configuration of a Hugging Face model with these numbers."""
    from transformers import LlamaConfig, Qwen2Config

    settings: dict[str, Any] = {
        "hidden_size": model.width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_width,
        "intermediate_size": model.inner,
        "vocab_size": model.vocabulary,
        "tie_word_embeddings": model.tied,
        "max_position_embeddings": model.positions,
    }
    return Qwen2Config(**settings) if model.biased else LlamaConfig(**settings)


def build(model: Architecture, **settings):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(hugging_face(model), attn_implementation="sdpa", **settings)


# Against real tensors.


@pytest.mark.parametrize("name", sorted({repo for repo, _ in (*CHECKPOINTS.values(), *SMALL_CHECKPOINTS.values())}))
def test_a_published_checkpoint_has_the_parameters_of_its_class(name):
    with torch.device("meta"):
        model = build(PUBLISHED[name])
    assert PUBLISHED[name].parameters == model.num_parameters()


@pytest.mark.parametrize("family", ["qwen", "llama"])
@pytest.mark.parametrize("size", list(SIZES))
def test_a_tiny_model_has_the_parameters_of_its_class(family, size):
    model = tiny_architecture(family, size)
    assert model.parameters == build(model).num_parameters()


def test_the_slots_hold_the_bytes_that_are_estimated():
    pair, slots, new = tiny_pair("qwen2"), 6, 10
    decoding = Decoding(max_new_tokens=new, repetition_penalty=1.2, temperature=1.0)
    engine = SlotEngine(post=pair[0], pre=pair[1], tokenizer=None, decoding=decoding, slots=slots)
    rows = [Request(row_id=str(n), prompt_token_ids=prompt) for n, prompt in enumerate(ragged_prompts(slots, seed=3))]
    list(engine.decode(rows))
    cached = [tensor for backbone in engine._backbones for layer in backbone.cache.slot_layers
              for tensor in (layer.keys, layer.values) if tensor is not None]  # fmt: skip
    state = engine._state
    tables = (state.tokens_ST, state.logprob_STM, state.uniform_ST, state.seen_SV)
    held = sum(tensor.nbytes for tensor in (*cached, *tables) if tensor is not None)
    models, tokens = [architecture(model.config) for model in pair], engine._backbones[0].cache.capacity
    estimated = slots * memory.slot_bytes(models, tokens=tokens, new_tokens=new, itemsize=4)
    scores = slots * sum(memory.SCORE_COPIES * 4 * model.vocabulary for model in models)
    assert held == estimated - scores
    weights = sum(parameter.nbytes for model in pair for parameter in model.parameters())
    assert memory.decoding(models, slots=slots, new_tokens=new, itemsize=4).weights == weights


def test_a_step_of_adamw_holds_the_weights_gradients_and_states_that_are_estimated():
    tiny = tiny_architecture("qwen", "3B")
    model = build(tiny, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    gradients = sum(parameter.grad.nbytes for parameter in model.parameters() if parameter.grad is not None)
    states = [tensor for state in optimizer.state.values() for name, tensor in state.items() if name != "step"]
    need = memory.training(tiny, tokens=4, workers=1, zero="none", itemsize=4, checkpointing=False)
    assert need.weights == weights
    assert need.states == gradients + sum(tensor.nbytes for tensor in states)


class Peak(TorchDispatchMode):
    """Counts the bytes of the storages that are made inside and alive at once; those of `known` are not counted."""

    def __init__(self, known) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._seen:
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def peak_of(model: Architecture, *, rows: int, length: int, dtype: torch.dtype, checkpointing: bool | None) -> int:
    """Return the peak of a pass over a model whose tensors have shapes but no content; None of a pass without grads."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        network = build(model, dtype=dtype)
        if checkpointing:
            network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        network.train(checkpointing is not None).requires_grad_(checkpointing is not None)
        ids = torch.zeros(rows, length, dtype=torch.long)
        with Peak([*network.parameters(), *network.buffers(), ids]) as peak:
            hidden = network.base_model(input_ids=ids, use_cache=False).last_hidden_state
            if checkpointing is not None:
                hidden.sum().backward()
    return peak.peak


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("wide", [2048, 8192])
def test_the_activations_of_a_backward_pass_are_estimated_from_above_and_not_far_off(dtype, checkpointing, wide):
    model = dataclasses.replace(QWEN_3B, layers=3, width=1024, heads=8, inner=wide, vocabulary=64)
    found = peak_of(model, rows=2, length=2048, dtype=dtype, checkpointing=checkpointing)
    need = memory.training(
        model, tokens=2 * 2048, workers=1, zero="none", itemsize=dtype.itemsize, checkpointing=checkpointing
    )
    gradients = dtype.itemsize * model.parameters
    copies = 2 * model.parameters if dtype == torch.bfloat16 and not checkpointing else 0
    assert found <= need.working - copies + gradients <= 1.6 * found


@pytest.mark.parametrize(
    ("shape", "tokens", "measured"),
    [((28, 3584, 28, 4, 18944, 152064, False), 8192, 128.97), ((36, 2048, 16, 2, 11008, 151936, True), 16384, 55.87)],
    ids=["7B", "3B"],
)
def test_a_training_on_one_gpu_is_estimated_from_above_and_not_far_off(shape, tokens, measured):
    """`measured` are peaks of `experiments/bench_shapes.py` on an H200: SFT in bfloat16 without DeepSpeed."""
    layers, width, heads, kv_heads, inner, vocabulary, tied = shape
    model = Architecture(
        layers=layers, width=width, heads=heads, kv_heads=kv_heads, head_width=128, inner=inner, vocabulary=vocabulary,
        tied=tied, positions=4096,
    )  # fmt: skip
    settings: dict[str, Any] = {"workers": 1, "zero": "none", "itemsize": 2, "checkpointing": True, "fused": True}
    need = memory.training(model, tokens=tokens, **settings)
    assert measured <= need.total / 1e9 <= 1.05 * measured


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.2-3B-Instruct"])
def test_a_prefill_pass_is_estimated_from_above_and_not_far_off(name):
    model = dataclasses.replace(PUBLISHED[name], layers=2, vocabulary=64)
    found = peak_of(model, rows=8, length=512, dtype=torch.bfloat16, checkpointing=None)
    need = memory.decoding([model], slots=2, new_tokens=2048, itemsize=2)
    tokens = min(memory.PREFILL_TOKENS, 2 * 2560)
    assert found <= need.working * 4096 / tokens <= 1.3 * found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_loss_of_whole_logits_is_estimated_from_above_and_not_far_off(dtype):
    rows, length, words = 2, 64, 4000
    hidden = torch.randn(rows, length, 16, dtype=dtype, requires_grad=True)
    head = torch.randn(words, 16, dtype=dtype, requires_grad=True)
    labels = torch.zeros(rows, length, dtype=torch.long)
    with Peak([hidden, head, labels]) as peak:
        logits = hidden @ head.T
        confidence_loss(
            logits=logits[labels != -100].float(), labels=labels[labels != -100], weight=0.3
        ).sum().backward()
    small = dataclasses.replace(QWEN_3B, layers=1, width=16, heads=1, kv_heads=1, head_width=16, inner=16)
    small = dataclasses.replace(small, vocabulary=words)
    settings: dict[str, Any] = {
        "tokens": rows * length,
        "workers": 1,
        "zero": "none",
        "itemsize": dtype.itemsize,
    }
    need = memory.training(small, checkpointing=True, whole_logits=True, **settings)
    assert peak.peak <= need.working <= 1.3 * peak.peak


def test_a_scoring_pass_is_estimated_from_above_and_not_far_off():
    model = dataclasses.replace(QWEN_3B, layers=2, width=64, heads=4, kv_heads=2, head_width=16, inner=128)
    model = dataclasses.replace(model, vocabulary=3000)
    network, prompt, completion = build(model, dtype=torch.float32).eval().requires_grad_(False), (5,) * 20, (7,) * 60
    with Peak([*network.parameters(), *network.buffers()]) as peak:
        teacher_forced_logprobs(network, prompts=[prompt] * 4, completions=[completion] * 4, batch_size=4)
    need = memory.scoring([model], tokens=4 * 80, scored=4 * 61, longest=80, itemsize=4)
    assert peak.peak <= need.working <= 2 * peak.peak


def test_a_scoring_pass_never_has_more_tokens_than_allowed_and_its_sums_stay_the_same(monkeypatch):
    network, sizes = tiny_pair("qwen2")[0], [3, 9, 1, 4, 4, 30, 2]
    rows = {"prompts": [(5, 6)] * 7, "completions": [(7,) * size for size in sizes]}
    whole = teacher_forced_logprobs(network, **rows, batch_size=7)
    passes, real = [], logprobs._batch_logprobs

    def watched(model, batch):
        passes.append([len(completion) for _, completion in batch])
        return real(model, batch)

    monkeypatch.setattr(logprobs, "_batch_logprobs", watched)
    parts = teacher_forced_logprobs(network, **rows, batch_size=3, most_tokens=12)
    assert parts == pytest.approx(whole, abs=1e-4)
    assert sorted(size for one in passes for size in one) == sorted(sizes)
    assert all(len(one) == 1 or (len(one) * max(one) <= 12 and len(one) <= 3) for one in passes)
    assert len(passes) == 4


# As a property.


@given(model=architectures, slots=st.integers(1, 512), new=st.integers(1, 4096), itemsize=itemsizes)
def test_decoding_needs_more_with_more_slots_longer_responses_wider_numbers_and_a_second_model(
    model, slots, new, itemsize
):
    one = memory.decoding([model], slots=slots, new_tokens=new, itemsize=itemsize).total
    assert memory.decoding([model], slots=slots + 1, new_tokens=new, itemsize=itemsize).total > one
    assert memory.decoding([model], slots=slots, new_tokens=new + 1, itemsize=itemsize).total > one
    assert memory.decoding([model], slots=slots, new_tokens=new, itemsize=2 * itemsize).total > one
    pair = memory.decoding([model, model], slots=slots, new_tokens=new, itemsize=itemsize).total
    shared = memory.decoding([model, model], slots=slots, new_tokens=new, itemsize=itemsize, shared=True).total
    assert one < shared < pair
    deeper = dataclasses.replace(model, layers=model.layers + 1)
    assert memory.decoding([deeper], slots=slots, new_tokens=new, itemsize=itemsize).total > one


@given(model=architectures, free=st.floats(0, 1e12), new=st.integers(1, 4096), itemsize=itemsizes)
def test_the_slots_that_are_given_out_fit_and_one_more_would_not(model, free, new, itemsize):
    load = {"tokens": new + 100, "new_tokens": new, "itemsize": itemsize}
    slots = memory.slots_in([model], free_bytes=free, **load)
    one = memory.slot_bytes([model], **load)
    assert slots == 1 or slots * one <= free
    assert slots == memory.MOST_SLOTS or (slots + 1) * one > free - 1


@given(
    model=architectures,
    tokens=st.integers(2, 2**16),
    workers=st.integers(1, 64),
    zero=zeros,
    itemsize=itemsizes,
    checkpointing=st.booleans(),
    whole=st.booleans(),
)
def test_training_needs_more_with_more_to_hold_and_no_more_with_more_workers(
    model, tokens, workers, zero, itemsize, checkpointing, whole
):
    settings: dict[str, Any] = {
        "tokens": tokens, "workers": workers, "zero": zero, "itemsize": itemsize,
        "checkpointing": checkpointing, "whole_logits": whole,
    }  # fmt: skip
    base = memory.training(model, **settings)
    for more in ({"tokens": tokens + 1}, {"checkpointing": False}):
        assert memory.training(model, **{**settings, **more}).total >= base.total
    assert memory.training(dataclasses.replace(model, layers=model.layers + 1), **settings).total > base.total
    if zero != "none":
        crowd = memory.training(model, **{**settings, "workers": workers + 1})
        assert crowd.total <= base.total
        assert crowd.host <= base.host
    order = [memory.training(model, **{**settings, "zero": name}).weights for name in ("zero2", "zero3")]
    assert order[0] >= order[1]


def test_zero_shares_out_sixteen_bytes_per_parameter():
    count = QWEN_3B.parameters
    settings: dict[str, Any] = {"tokens": 2, "itemsize": 2, "checkpointing": True}

    def held(zero: str, workers: int) -> float:
        need = memory.training(QWEN_3B, zero=zero, workers=workers, **settings)
        return need.weights + need.states + need.host

    assert held("zero3", 1) == held("none", 1) == 16 * count
    assert held("zero3", 8) == held("zero3-offload", 8) == 2 * count
    assert held("zero2", 8) == (2 + 14 / 8) * count
