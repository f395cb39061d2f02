"""Whatever an adapter does to weights of its base, pi_ref stays the base; one that does not fit is refused."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from reference_decoding import tiny_model
from safetensors.torch import load_file, save_file

from cong.decoding import load_model, load_pair
from cong.decoding.lora import checksum
from cong.errors import UserError

KINDS = {
    "plain": {},
    "biases of adapted layers": {"bias": "lora_only"},
    "OLoRA": {"init_lora_weights": "olora"},
    "whole head": {"modules_to_save": ["lm_head"]},
    "whole norms": {"modules_to_save": ["input_layernorm"]},
    "tokens": {"trainable_token_indices": [5, 6]},
    "adapted embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "DoRA": {"use_dora": True},
}
TOKENS = torch.tensor([[20, 21, 22, 5, 6, 23]])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("base")
    tiny_model("qwen2", seed=3).save_pretrained(directory)
    return directory


def train(base, directory, **settings):
    """Write an adapter on the base whose every trained tensor was moved, and return what it gives for `TOKENS`."""
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **settings}
    model = get_peft_model(load_model(base, dtype="float32", device="cpu"), LoraConfig(**given))
    generator = torch.Generator().manual_seed(5)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.3 * torch.randn(weight.shape, generator=generator)
    model.save_pretrained(directory)
    return model.eval()(TOKENS).logits


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_is_bit_for_bit_what_it_was(base, tmp_path, kind):
    trained = train(base, tmp_path, **KINDS[kind])
    alone = load_model(base, dtype="float32", device="cpu")
    post, pre = load_pair(post=tmp_path, pre=base, dtype="float32", device="cpu")
    for name, weight in [*alone.named_parameters(), *alone.named_buffers()]:
        assert torch.equal(weight, dict([*pre.named_parameters(), *pre.named_buffers()])[name])
    apart = PeftModel.from_pretrained(copy.deepcopy(alone), str(tmp_path)).eval()
    torch.testing.assert_close(post(TOKENS).logits, apart(TOKENS).logits)
    torch.testing.assert_close(post(TOKENS).logits, trained, atol=1e-3, rtol=1e-3)
    assert (post(TOKENS).logits - pre(TOKENS).logits).abs().max() > 0.01


def test_only_what_the_adapter_added_is_cast(base, tmp_path):
    train(base, tmp_path)
    post, pre = load_pair(post=tmp_path, pre=base, dtype="bfloat16", device="cpu")
    assert {weight.dtype for weight in post.parameters()} == {torch.bfloat16}
    frequencies = [dict(model.named_buffers())["model.rotary_emb.inv_freq"] for model in (post, pre)]
    assert frequencies[0].dtype == torch.float32
    assert torch.equal(*frequencies)


def test_a_checksum_sees_swapped_and_negated_weights(base):
    model = load_model(base, dtype="bfloat16", device="cpu")
    before, weight = checksum(model), model.get_parameter("model.norm.weight")
    head = model.get_parameter("lm_head.weight")
    for change in (lambda: head.data.copy_(head.flip(0)), lambda: weight.data.neg_()):
        change()
        assert checksum(model) != before
        change()
        assert checksum(model) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {name.replace(".layers.", ".blocks."): t for name, t in w.items()}, "no place there: .*blocks.0"),
        (lambda w: {name: t for name, t in w.items() if "layers.1" not in name}, "misses .*layers.1"),
        (lambda w: {name: t[:, :2] if "lora_A" in name else t for name, t in w.items()}, "size mismatch"),
        (lambda w: w | {"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": torch.zeros(4, 32)}, "up_proj"),
    ],
    ids=["other names", "a layer missing", "other shapes", "one more"],
)
def test_an_adapter_whose_tensors_do_not_fit_is_refused(base, tmp_path, change, message):
    train(base, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    changed = {name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}
    save_file(changed, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=message) as refusal:
        load_pair(post=tmp_path, pre=base, dtype="float32", device="cpu")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "a randomized decomposition of its base"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "repeats layers of its base"),
    ],
)
def test_an_adapter_that_cannot_be_loaded_as_it_was_trained_is_refused(base, tmp_path, setting, message):
    train(base, tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | setting))
    with pytest.raises(UserError, match=message):
        load_pair(post=tmp_path, pre=base, dtype="float32", device="cpu")
