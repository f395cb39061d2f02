"""Tiny models: Hugging Face checkpoints that learn, and whose pretraining survives being killed."""

import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forked
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cong.synthetic.models import SIZES, build_config, pretrain, response_loss
from cong.synthetic.tokenizer import Family, build_tokenizer
from cong.synthetic.world import World

WORLD = World(categories=2, attributes=2)
FAMILIES: list[Family] = ["llama", "qwen"]


def pretrain_until(chosen: dict[str, Any], last: int) -> None:
    """Pretrain, and end by kill -9 at a step."""
    torch.set_num_threads(1)
    pretrain(world=WORLD, log=lambda step, loss: os.kill(os.getpid(), signal.SIGKILL) if step == last else None,
             **chosen)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer_dirs(tmp_path_factory):
    made: dict[Family, Path] = {family: tmp_path_factory.mktemp(f"tokenizer-{family}") for family in FAMILIES}
    for family, directory in made.items():
        build_tokenizer(WORLD, family=family, directory=directory)
    return made


def settings(tokenizer_dir: Path, output_dir: Path, **changes) -> dict[str, Any]:
    common = {"family": "qwen", "size": "1.5B", "batch_documents": 8, "learning_rate": 5e-3, "seed": 0, "steps": 120}
    return {**common, "tokenizer_dir": str(tokenizer_dir), "output_dir": str(output_dir), **changes}


def silent(step: int, loss: float) -> None:
    pass


@pytest.fixture(scope="module")
def undisturbed(tokenizer_dirs, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    losses: list[float] = []
    result = pretrain(world=WORLD, log=lambda step, loss: losses.append(loss), **settings(tokenizer_dirs["qwen"], out))
    return out, losses, result


def test_the_loss_falls_and_the_heldout_loss_follows(undisturbed):
    _, losses, result = undisturbed
    assert len(losses) == 120
    assert losses[0] > 5.0
    assert sum(losses[-10:]) / 10 < 2.0
    assert result["heldout_loss"] == pytest.approx(sum(losses[-10:]) / 10, abs=0.3)


def test_the_checkpoint_is_one_of_hugging_face(undisturbed):
    out, _, _ = undisturbed
    model: Any = AutoModelForCausalLM.from_pretrained(str(out))
    tokenizer = AutoTokenizer.from_pretrained(str(out))
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    messages = [{"role": "user", "content": WORLD.prompts[0]}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**asked, max_new_tokens=48, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert written[-1] == tokenizer.eos_token_id
    assert ";" in tokenizer.decode(written, skip_special_tokens=True).split()


def test_the_tokenizer_loads_as_itself_beside_a_model_configuration(undisturbed, tokenizer_dirs):
    beside_model = AutoTokenizer.from_pretrained(str(undisturbed[0]))
    alone = AutoTokenizer.from_pretrained(str(tokenizer_dirs["qwen"]))
    messages = [{"role": "user", "content": WORLD.prompts[5]}]
    assert beside_model.get_vocab() == alone.get_vocab()
    assert beside_model.apply_chat_template(messages, return_dict=False) == alone.apply_chat_template(
        messages, return_dict=False
    )


def test_the_same_settings_give_the_same_weights_and_another_seed_gives_others(undisturbed, tokenizer_dirs, tmp_path):
    short = {"steps": 5, "batch_documents": 4}
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        pretrain(world=WORLD, log=silent, **settings(tokenizer_dirs["qwen"], tmp_path / name, seed=seed, **short))
    first, again, other = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_a_killed_pretraining_resumes_to_bit_identical_weights(undisturbed, tokenizer_dirs, tmp_path):
    chosen = settings(tokenizer_dirs["qwen"], tmp_path / "model", checkpoint_dir=str(tmp_path / "state"))
    child = Forked(pretrain_until, chosen, 110, env=dict(os.environ), cwd=tmp_path)
    assert child.wait(timeout=240) == -signal.SIGKILL, child.output()
    assert not (tmp_path / "model").exists()
    steps: list[int] = []
    result = pretrain(world=WORLD, log=lambda step, loss: steps.append(step), **chosen)
    assert steps == list(range(100, 120))
    assert result["steps_run"] == 20
    resumed, whole = (
        load_file(tmp_path / "model" / "model.safetensors"),
        load_file(undisturbed[0] / "model.safetensors"),
    )
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


def test_a_finished_pretraining_called_again_writes_the_same_model(tokenizer_dirs, tmp_path):
    chosen = settings(tokenizer_dirs["qwen"], tmp_path / "model", checkpoint_dir=str(tmp_path / "state"), steps=100)
    pretrain(world=WORLD, log=silent, **chosen)
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert pretrain(world=WORLD, log=silent, **chosen)["steps_run"] == 0
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("family", FAMILIES)
def test_every_size_has_more_parameters_than_the_one_below(tokenizer_dirs, family):
    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_dirs[family]))
    counts = []
    for size in SIZES:
        config = build_config(family, size, tokenizer)
        assert config.vocab_size == len(tokenizer)
        assert config.eos_token_id == tokenizer.eos_token_id
        with torch.device("meta"):
            counts.append(AutoModelForCausalLM.from_config(config).num_parameters())
    assert all(2 * small < large for small, large in pairwise(counts))


def test_the_llama_family_pretrains_too(tokenizer_dirs, tmp_path):
    pretrain(world=WORLD, log=silent, **settings(tokenizer_dirs["llama"], tmp_path, family="llama", steps=2))
    assert AutoConfig.from_pretrained(str(tmp_path)).model_type == "llama"


def test_padding_does_not_change_the_loss(undisturbed):
    model = AutoModelForCausalLM.from_pretrained(str(undisturbed[0]))
    ids = torch.arange(20, 32)[None]
    labels = ids.clone()
    labels[:, :4] = -100
    padded = torch.nn.functional.pad(ids, (0, 5), value=model.config.pad_token_id)
    padded_labels = torch.nn.functional.pad(labels, (0, 5), value=-100)
    with torch.no_grad():
        plain = response_loss(model, ids, labels)
        assert response_loss(model, padded, padded_labels) == pytest.approx(plain.item(), abs=1e-5)
        assert model(input_ids=ids, labels=labels).loss == pytest.approx(plain.item(), abs=1e-5)
