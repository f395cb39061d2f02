"""A model is loaded with its stored weights and no others, wherever it is loaded; weight files are looked at before."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from reference_decoding import tiny_model
from safetensors.torch import load_file, save_file
from spoken import INLINE
from test_training_tiny import make_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from cong.data.map_rows import Actor
from cong.decoding import load_checked, load_model, load_pair
from cong.errors import UserError
from cong.models import LocalModel, check_model
from cong.models.weightfiles import check_weight_files, tensor_names

FLOAT = {"dtype": "float32", "device": "cpu"}
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of one random model with its embeddings apart (`apart`) and one with them tied (`tied`)."""
    directory = tmp_path_factory.mktemp("saved")
    for name, tied in (("apart", False), ("tied", True)):
        tiny_model("qwen2", seed=0, tie_word_embeddings=tied).save_pretrained(directory / name)
    return directory


def changed(source, target, change):
    """Copy a checkpoint, its tensors changed by a function of the dictionary that holds them."""
    shutil.copytree(source, target)
    save_file(change(load_file(source / WEIGHTS)), target / WEIGHTS, metadata={"format": "pt"})
    return target


def without(tensors, part):
    return {name: tensor for name, tensor in tensors.items() if part not in name}


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        ("apart", lambda w: {f"module.{name}": t for name, t in w.items()}, "misses lm_head.weight, model.embed_"),
        ("tied", lambda w: {f"policy.{name}": t for name, t in w.items()}, "has no place there: policy.model.embed_"),
        ("apart", lambda w: without(w, "layers.1.mlp.up_proj"), r"misses model.layers.1.mlp.up_proj.weight$"),
        ("tied", lambda w: without(w, "q_proj.bias"), "misses model.layers.0.self_attn.q_proj.bias"),
        ("tied", lambda w: without(w, "embed_tokens"), "misses"),
        ("apart", lambda w: w | {"lm_head.weight": torch.zeros(99, 32)}, r"lm_head.weight \(99, 32\) for \(97, 32\)"),
        ("tied", lambda w: w | {"score.weight": torch.zeros(1, 32)}, "has no place there: score.weight"),
        ("apart", lambda w: w | {"model.layers.2.mlp.up_proj.weight": torch.zeros(64, 32)}, "layers.2.mlp.up_proj"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_their_names(saved, tmp_path, source, change, message):
    with pytest.raises(UserError, match=message) as refusal:
        load_model(changed(saved / source, tmp_path / "bad", change), dtype="float32", device="cpu")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w | {"lm_head.weight": w["model.embed_tokens.weight"].clone()},
        lambda w: {name.replace("model.embed_tokens", "lm_head"): tensor for name, tensor in w.items()},
        lambda w: {name.removeprefix("model."): tensor for name, tensor in w.items()},
        lambda w: w | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)},
    ],
    ids=["stored twice", "stored as the head", "saved as a base model", "with computed buffers"],
)
def test_tied_weights_and_computed_buffers_are_no_fault(saved, tmp_path, change):
    plain = load_model(saved / "tied", dtype="float32", device="cpu")
    model = load_model(changed(saved / "tied", tmp_path / "good", change), dtype="float32", device="cpu")
    for name, weight in plain.named_parameters():
        assert torch.equal(weight, model.get_parameter(name))
    assert model.get_parameter("lm_head.weight") is model.get_parameter("model.embed_tokens.weight")


def test_either_side_of_a_pair_is_checked(saved, tmp_path):
    bad = changed(saved / "apart", tmp_path / "bad", lambda w: without(w, "down_proj"))
    for sides in ({"post": bad, "pre": saved / "apart"}, {"post": saved / "apart", "pre": bad}):
        with pytest.raises(UserError, match="down_proj"):
            load_pair(**sides, dtype="float32", device="cpu")


def test_a_language_model_is_no_reward_model_and_a_reward_model_no_language_model(saved, tmp_path):
    with pytest.raises(UserError, match=r"Qwen2ForSequenceClassification: it misses score\.weight"):
        load_checked(AutoModelForSequenceClassification, saved / "tied", dtype="float32")
    config = AutoModelForCausalLM.from_pretrained(saved / "tied").config
    config.num_labels = 1
    reward: torch.nn.Module = AutoModelForSequenceClassification.from_config(config)
    reward.save_pretrained(tmp_path / "reward")  # pyright: ignore[reportCallIssue]
    with pytest.raises(UserError, match=r"has no place there: score.weight"):
        load_model(tmp_path / "reward", dtype="float32", device="cpu")
    left = changed(tmp_path / "reward", tmp_path / "left", lambda w: w | {"lm_head.weight": torch.zeros(97, 32)})
    assert load_checked(AutoModelForSequenceClassification, left, dtype="float32").config.num_labels == 1


def test_a_training_does_not_begin_with_weights_that_its_checkpoint_lacks(tmp_path):
    from cong.training.trainers import _policy

    make_model(tmp_path / "whole")
    bad = changed(tmp_path / "whole", tmp_path / "bad", lambda w: without(w, "layers.0.mlp"))
    args = SimpleNamespace(model_init_kwargs={"device_map": None, "dtype": "float32"})
    with pytest.raises(UserError, match=r"misses model.layers.0.mlp.down_proj.weight"):
        _policy(str(bad), args)
    assert args.model_init_kwargs is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: whole[:4], "no safetensors file, or a part of one"),
        (lambda whole: whole[:200], "no safetensors file, or a part of one"),
        (lambda whole: whole[:-7], "bytes where its header needs"),
        (lambda whole: whole + b"\0", "bytes where its header needs"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer"),
        (lambda whole: b"<html>404 not found: " + b"x" * 300, "no safetensors file"),
        (lambda whole: b"", "no safetensors file"),
    ],
)
def test_a_file_that_is_not_whole_is_named_before_anything_is_loaded(saved, tmp_path, content, message):
    shutil.copytree(saved / "apart", tmp_path / "bad")
    (tmp_path / "bad" / WEIGHTS).write_bytes(content((saved / "apart" / WEIGHTS).read_bytes()))
    with pytest.raises(UserError, match=message):
        check_model(LocalModel(path=str(tmp_path / "bad")))


def test_a_missing_part_of_a_split_checkpoint_is_named(saved, tmp_path):
    model = load_model(saved / "apart", dtype="float32", device="cpu")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    check_weight_files(tmp_path)
    part = sorted(tmp_path.glob("*.safetensors"))[1]
    assert tensor_names(part)
    part.unlink()
    with pytest.raises(UserError, match=f"{part.name}, which its index names, is missing"):
        check_weight_files(tmp_path)


def test_a_kind_of_model_that_is_not_known_here_is_one_line(saved, tmp_path):
    shutil.copytree(saved / "apart", tmp_path / "new")
    config = tmp_path / "new" / "config.json"
    config.write_text(config.read_text().replace('"qwen2"', '"another9"'))
    with pytest.raises(UserError, match="another9") as refusal:
        load_model(tmp_path / "new", dtype="float32", device="cpu")
    assert "\n" not in str(refusal.value)


def test_an_actor_that_cannot_load_its_model_says_why_in_one_line(saved, tmp_path):
    import pyarrow as pa

    def worker():
        load_model(changed(saved / "apart", tmp_path / "bad", lambda w: without(w, "lm_head")), **FLOAT)

    actor = Actor(worker, tmp_path)  # pyright: ignore[reportArgumentType]
    answer = actor(pa.Table.from_pylist([{"row_id": "a"}]))
    assert answer["rows"].tolist() == [0]
    assert answer["refusal"][0].endswith("Qwen2ForCausalLM: it misses lm_head.weight")
    with pytest.raises(UserError, match="it misses"):
        actor.compute([{"row_id": "a"}])


def test_lm_eval_is_given_a_model_whose_weights_are_all_stored(tmp_path):
    from cong.evaluation.downstream import _loaded

    make_model(tmp_path / "whole")
    assert set(_loaded(tmp_path / "whole", INLINE)) == {"pretrained", "tokenizer"}
    bad = changed(tmp_path / "whole", tmp_path / "bad", lambda w: without(w, "layers.1.self_attn.k_proj"))
    with pytest.raises(UserError, match="k_proj"):
        _loaded(bad, INLINE)
