"""A LoRA adapter as the aligned model of a pair: the same text as merged weights, with the base weights held once."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from reference_decoding import STOP_IDS, ragged_prompts, reference_greedy, tiny_model

from cong.decoding import Decoding, GenerateEngine, Request, SlotEngine, load_model, load_pair
from cong.models import LocalModel

TARGETS = ["q_proj", "v_proj", "down_proj"]


def save_adapter(family, directory):
    """A base checkpoint, an adapter on it with random weights, and the checkpoint that merging both gives."""
    base = tiny_model(family, seed=0)
    base.save_pretrained(directory / "base")
    torch.manual_seed(5)
    config = LoraConfig(r=4, lora_alpha=16, target_modules=TARGETS, init_lora_weights=False, task_type="CAUSAL_LM")
    wrapped: Any = get_peft_model(base, config)
    wrapped.save_pretrained(directory / "adapter")
    wrapped.merge_and_unload().save_pretrained(directory / "merged")
    return directory


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def saved(request, tmp_path_factory):
    return save_adapter(request.param, tmp_path_factory.mktemp(request.param))


def load(saved):
    return load_pair(post=saved / "adapter", pre=saved / "base", dtype="float32", device="cpu")


def test_base_weights_exist_once(saved):
    post, pre = load(saved)
    base = {weight.data_ptr() for weight in pre.parameters()}
    own = {name: weight for name, weight in post.named_parameters() if weight.data_ptr() not in base}
    assert own
    assert all("lora_" in name for name in own)
    assert base <= {weight.data_ptr() for weight in post.parameters()}
    assert not any("lora_" in name for name, _ in pre.named_parameters())


@pytest.mark.parametrize("engine", [SlotEngine, GenerateEngine])
def test_an_adapter_decodes_like_merged_weights(saved, engine):
    merged, base = (load_model(saved / name, dtype="float32", device="cpu") for name in ("merged", "base"))
    requests = [
        Request(row_id=str(index), prompt_token_ids=prompt, alpha=0.3)
        for index, prompt in enumerate(ragged_prompts(10, seed=2))
    ]
    post, pre = load(saved)
    decoding = Decoding(max_new_tokens=12, repetition_penalty=1.2)
    size: dict[str, Any] = {"slots": 4} if engine is SlotEngine else {"batch_size": 4}
    differ = 0
    for completion in engine(post=post, pre=pre, tokenizer=None, decoding=decoding, **size).decode(requests):
        prompt = requests[int(completion.row_id)].prompt_token_ids
        settings = {"max_new_tokens": 12, "stop_ids": STOP_IDS, "penalty": 1.2}
        tokens, logprob_post, logprob_pre = reference_greedy(merged, base, prompt, alpha=0.3, **settings)
        assert completion.num_tokens == len(tokens)
        assert completion.token_ids == tuple(token for token in tokens if token not in STOP_IDS)
        assert completion.logprob_post == pytest.approx(logprob_post, abs=1e-4)
        assert completion.logprob_pre == pytest.approx(logprob_pre, abs=1e-4)
        differ += abs(logprob_post - logprob_pre) > 0.1
    assert differ > 5


def test_two_whole_checkpoints_are_loaded_as_they_are(saved):
    post, pre = load_pair(post=saved / "merged", pre=saved / "base", dtype="float32", device="cpu")
    assert not {w.data_ptr() for w in post.parameters()} & {w.data_ptr() for w in pre.parameters()}
    assert not LocalModel(path=str(saved / "merged")).is_adapter
