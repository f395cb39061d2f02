"""`cong align` and `cong export`: one's own models, prompts and reward in, a checkpoint with its card out."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import spoken
import torch
import yaml
from commands import one_line
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cong.align.request import Request, with_lora, with_setting
from cong.align.run import align, planned
from cong.align.sources import model_of, prompts_of, reward_of
from cong.cli.app import main
from cong.data import PAIRS, PROMPTS, read_rows
from cong.data.heldout import HeldOut
from cong.errors import UserError
from cong.graph.resources import Resources
from cong.graph.store import Store
from cong.publish import export, find_model
from cong.run.job import Job
from cong.scales import scale

REWARDS = """
def vowels(prompt: str, response: str) -> float:
    return sum(letter in "aeiou" for letter in response) / (1 + len(response))


def raises(prompt: str, response: str) -> float:
    raise KeyError("no such thing")


def nan(prompt: str, response: str) -> float:
    return float("nan")


def one(prompt: str) -> float:
    return 1.0
"""
INLINE = Resources(name="inline").changed(ray=False, actors=0, micro_tokens=4096)
SETTINGS = ("max_new_tokens=12", "alignment.learning_rate=1e-3", "sft.learning_rate=1e-3", "dpo.learning_rate=1e-3")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Two models, prompts with system turns and several turns, and a file of rewards."""
    folder = tmp_path_factory.mktemp("own")
    for name, seed in (("weak", 0), ("strong", 1)):
        spoken.checkpoint(folder / name, seed=seed)
    kinds = (
        lambda n: {"prompt": f"say {n}"},
        lambda n: {"messages": [turn("system", "Be kind."), turn("user", f"hello {n}")]},
        lambda n: {"messages": [turn("user", "hi"), turn("assistant", "yes?"), turn("user", f"tell {n}")]},
    )
    rows = [kinds[number % 3](number) for number in range(20)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rewards.py").write_text(REWARDS)
    return folder


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def request(own: Path, **changes) -> Request:
    given = {
        "weak": model_of(str(own / "weak")),
        "strong": model_of(str(own / "strong")),
        "prompts": prompts_of(str(own / "prompts.jsonl")),
        "reward": reward_of(f"{own / 'rewards.py'}:vowels"),
    }
    return Request(**{**given, **changes})


def job(own: Path, store: Store, *, name: str = "mine", rank: int | None = None, **changes) -> Job:
    asked = request(own, **changes)
    made = asked.scale(scale("small"), name=name)
    for text in SETTINGS:
        made = with_setting(made, text)
    made = made if rank is None else with_lora(made, rank=rank)
    return planned(asked, scale=made, resources=INLINE, store=store)


@pytest.fixture(scope="module")
def aligned(own, tmp_path_factory):
    folder = tmp_path_factory.mktemp("aligned")
    store = Store(folder / "store")
    model, _ = align(job(own, store), folder / "mine")
    return store, model


def test_it_writes_a_checkpoint_that_chats_with_its_card_and_the_report(aligned):
    _, model = aligned
    tokenizer, network = AutoTokenizer.from_pretrained(model), loaded(model)
    inputs = tokenizer.apply_chat_template(
        [turn("user", "say 3")], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert network.generate(**inputs, max_new_tokens=3).shape[1] > inputs["input_ids"].shape[1]
    card = (model / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers"
    for text in ("alpha 0.4", "ContrastiveGenerate", "**method ConG", "95 % interval", "sha256"):
        assert text in card
    assert (model / "report" / "align-mine.html").is_file()


def loaded(model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model)


def test_run_again_it_computes_nothing_and_leaves_the_model_alone(own, aligned, capsys):
    store, model = aligned
    before = (model / "model.safetensors").stat().st_mtime_ns
    assert align(job(own, store), model)[0] == model
    assert "0 stages computed" in capsys.readouterr().out
    assert (model / "model.safetensors").stat().st_mtime_ns == before


def test_another_model_is_never_written_over_it(own, aligned):
    store, model = aligned
    with pytest.raises(UserError, match="holds something else"):
        align(job(own, store, beta=0.2), model)


def test_prompts_that_are_held_out_are_not_trained_on(own, aligned):
    store, _ = aligned
    planned_job = job(own, store)
    parts = {stage.part: stage for stage in planned_job.plan.stages if isinstance(stage, HeldOut)}
    ids = {
        part: {row["prompt_id"] for row in read_rows(store.directory(stage) / PROMPTS)} for part, stage in parts.items()
    }
    assert len(ids["held out"]) == 2
    assert len(ids["rest"]) == 18
    assert not ids["held out"] & ids["rest"]


def test_system_turns_and_earlier_turns_reach_the_training_rows(own, aligned):
    store, _ = aligned
    pairs = next(stage for stage in job(own, store).plan.stages if stage.name == "PreferencePairs")
    turns = [row.get("messages") for row in read_rows(store.directory(pairs) / PAIRS)]
    assert any(text and "Be kind." in text for text in turns)
    assert any(text and "yes?" in text for text in turns)


@pytest.mark.parametrize("text", ["DPO/beta=0.5", "align-mine:method=ConG", "align:method=ConG,alpha=0.4"])
def test_a_stage_or_a_cell_names_the_model_that_is_exported(aligned, tmp_path, text):
    store, model = aligned
    made = export(find_model(store.root, text), tmp_path / "out")
    assert weights(made) == weights(model)


def weights(directory: Path) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in load_file(directory / "model.safetensors").items()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "means no finished model"),
        ("DPO", "means 2 models"),
        ("quickstart:method=ConG", "no run of an experiment 'quickstart'"),
        ("align:ConG", "a cell is written EXPERIMENT:AXIS=VALUE"),
        ("align:method=WSPO", "means no finished model"),
    ],
)
def test_what_names_no_model_or_several_is_answered_with_those_there_are(aligned, text, message):
    with pytest.raises(UserError, match=message):
        find_model(aligned[0].root, text)


def test_an_adapter_is_exported_as_it_is_or_merged_into_what_it_was_trained_on(own, tmp_path):
    store = Store(tmp_path / "store")
    merged, _ = align(job(own, store, name="small", rank=2), tmp_path / "small")
    trained = find_model(store.root, "align:method=ConG")
    assert trained.is_adapter
    apart = export(trained, tmp_path / "adapter", adapter=True)
    assert "peft" in (apart / "README.md").read_text()
    assert trained.base_directory().parent.parent.name == "SFT"
    inputs = torch.arange(5, 15)[None]
    student = find_model(store.root, "align:method=ConG-S")
    # In double precision: what is left is the rounding of the merged weights, not that of two orders of summation.
    base = AutoModelForCausalLM.from_pretrained(export(student, tmp_path / "student"), dtype=torch.float64)
    together = (
        PeftModel.from_pretrained(base, str(apart), autocast_adapter_dtype=False).double()(input_ids=inputs).logits
    )
    whole = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float64)(input_ids=inputs).logits
    assert torch.allclose(whole, together, atol=1e-5)
    with pytest.raises(UserError, match="has whole weights"):
        export(find_model(_whole(own, tmp_path), "align:method=ConG"), tmp_path / "no", adapter=True)


def _whole(own: Path, tmp_path: Path) -> Path:
    store = Store(tmp_path / "whole")
    align(job(own, store), tmp_path / "whole-model")
    return store.root


def test_an_adapter_on_given_weights_finds_them_again_and_sees_when_they_changed(own, tmp_path):
    store, moved = Store(tmp_path / "store"), shutil.copytree(own / "strong", tmp_path / "strong")
    align(job(own, store, rank=2, strong=model_of(str(moved))), tmp_path / "out")
    student = find_model(store.root, "align:method=ConG-S")
    assert student.base_directory() == moved
    (moved / "tokenizer.json").write_text((moved / "tokenizer.json").read_text() + "\n")
    with pytest.raises(UserError, match="was changed since"):
        export(student, tmp_path / "student")


MISTAKES = {
    "no such function": ({"reward": "rewards.py:missing"}, "has no function missing"),
    "a function of one argument": ({"reward": "rewards.py:one"}, "cannot be called with a prompt and a response"),
    "a function that raises": ({"reward": "rewards.py:raises"}, "raised KeyError"),
    "a function without a number": ({"reward": "rewards.py:nan"}, "is nan"),
    "a language model as reward": ({"reward": "weak"}, "is a language model, and no classifier"),
    "no such model": ({"strong": "nowhere"}, "nowhere is no model"),
    "a name of the hub without a commit": ({"strong": "Qwen/Qwen2.5-3B-Instruct"}, "with 40 hexadecimal digits"),
    "a weak pair of two vocabularies": ({"weak-aligned": "other"}, "the weak pair has two tokenizers"),
    "an adapter of another base": ({"weak-aligned": "adapter"}, "was not trained on"),
    "a strong model without a chat template": ({"strong": "mute"}, "has no chat template"),
    "prompts of no known form": ({"prompts": "strange.jsonl"}, "line 1 has no 'prompt'"),
    "prompts in a file of text": ({"prompts": "prompts.txt"}, "prompts are a .jsonl, .json, .parquet file"),
    "a single prompt": ({"prompts": "single.jsonl"}, "holds one prompt"),
    "preferences without a rejected answer": ({"preferences": "prompts.jsonl"}, "has no 'chosen' and 'rejected'"),
    "an alpha above 1": ({"alpha": "1.5"}, "alpha = 1.5 is not in [0, 1]"),
    "a setting that there is not": ({"set": "sft.learning_rat=1e-3"}, "'learning_rat' cannot be set"),
    "a setting of another type": ({"set": "sft.epochs=many"}, "is not of type int"),
    "an output that is something else": ({"output": "weak"}, "holds something else"),
}


@pytest.fixture(scope="module")
def mistaken(own):
    spoken.checkpoint(own / "mute", tokenizer=spoken.byte_tokenizer(template=None))
    spoken.checkpoint(own / "other", tokenizer=another_tokenizer())
    spoken.checkpoint(own / "wide", hidden_size=64)
    wide = AutoModelForCausalLM.from_pretrained(own / "wide")
    get_peft_model(wide, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")).save_pretrained(
        own / "adapter"
    )
    (own / "strange.jsonl").write_text('{"ask": "why"}\n')
    (own / "prompts.txt").write_text("why\n")
    (own / "single.jsonl").write_text('{"prompt": "why"}\n')
    return own


def another_tokenizer():
    made = spoken.byte_tokenizer()
    made.add_tokens(["extra"])
    return made


@pytest.mark.parametrize(("changes", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_before_anything_is_computed(mistaken, tmp_path, monkeypatch, capsys, changes, message):
    given = {
        "weak": "weak", "strong": "strong", "prompts": "prompts.jsonl", "reward": "rewards.py:vowels",
        "output": str(tmp_path / "out"), "store": str(tmp_path / "store"), **changes,
    }  # fmt: skip
    places = {"weak", "strong", "weak-aligned", "prompts", "preferences", "reward", "output"}
    known = {
        name: str(mistaken / value) if name in places and (mistaken / value.split(":")[0]).exists() else value
        for name, value in given.items()
    }
    arguments = [part for name, value in known.items() for part in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["cong", "align", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    one_line(ended.value.code, "".join(capsys.readouterr()), message)
    assert not list((tmp_path / "store").glob("[A-Z]*/*/_SUCCESS"))


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "why"}, {"from": "gpt", "value": "so"}]},
        {"instruction": "explain", "input": "rain", "output": "water"},
        {"messages": [{"role": "user", "content": "why"}, {"role": "assistant", "content": "so"}]},
    ],
    ids=["ShareGPT", "Alpaca", "messages"],
)
def test_prompts_in_the_forms_of_the_field_are_read(own, tmp_path, row):
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row | {"prompt_id": n}) + "\n" for n in range(3)))
    asked = request(own, prompts=prompts_of(str(tmp_path / "prompts.jsonl")))
    made = asked.scale(scale("small"), name="read")
    assert len(planned(asked, scale=made, resources=INLINE, store=Store(tmp_path / "store")).cells) == 6
