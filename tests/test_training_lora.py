"""Adapters: learned as peft and TRL learn them, kept as adapters, and read as whole models by whoever reads them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_tiny import Given, dpo, losses, make_model, resources, run, sft, summary
from transformers import AutoModelForCausalLM, AutoTokenizer

from cong.data import read_rows, write_rows
from cong.data.rows import PROMPTS, RESPONSES
from cong.generation import ContrastiveGenerate, Generate
from cong.graph.fingerprint import LATER, fingerprint
from cong.graph.need import Need
from cong.graph.stage import Stage
from cong.models import adapter_base, architecture_of
from cong.scoring import ImplicitReward, Score
from cong.training import LoRA

ADAPTER = LoRA(rank=4, alpha=8)


def trained(stage, tmp_path: Path, **overrides) -> Path:
    return run(stage, tmp_path / "store", **overrides)


def locate(tmp_path: Path):
    def place(stage: Stage) -> Path:
        return Path(stage.directory) if isinstance(stage, Given) else tmp_path / "store" / stage.name / stage.slug

    return place


def made_prompts(tmp_path: Path) -> Given:
    (tmp_path / "prompts").mkdir(exist_ok=True)
    write_rows(tmp_path / "prompts" / PROMPTS, [{"prompt_id": f"p{n}", "prompt": f"ban du{n} kir"} for n in range(6)])
    return Given(directory=str(tmp_path / "prompts"))


def needed(need: Need | None) -> Need:
    assert need is not None
    return need


def plain_model(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


@pytest.mark.parametrize("make", [sft, dpo])
def test_the_losses_are_those_of_peft_and_trl_on_the_same_batches(tmp_path: Path, make) -> None:
    stage = make(tmp_path, rows=24, lora=ADAPTER, epochs=4, learning_rate=3e-2)
    ours = losses(trained(stage, tmp_path, micro_tokens=4096))
    assert ours == pytest.approx(_losses_of_trl(stage, tmp_path), abs=1e-4)
    assert len(ours) == 12
    assert ours[-1] < ours[0] - 0.05


def _losses_of_trl(stage, tmp_path: Path) -> list[float]:
    """Train with TRL's own trainers and peft's own configuration; the rows in our order, with their tokens."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from cong.training.order import row_order

    ctx: Any = type("Places", (), {"path": staticmethod(locate(tmp_path))})
    tokenizer = AutoTokenizer.from_pretrained(stage.model.path)
    rows = stage.token_rows(ctx, tokenizer)
    order = row_order(lengths=rows.lengths, epochs=stage.epochs, global_batch_size=8, seed=0)
    dataset = Dataset.from_dict(rows.columns).select(order)
    settings: dict[str, Any] = dict(
        output_dir=str(tmp_path / "trl"), learning_rate=stage.learning_rate, num_train_epochs=1,
        per_device_train_batch_size=8, lr_scheduler_type="cosine", warmup_steps=0.1, use_cpu=True, bf16=False,
        gradient_checkpointing=False, logging_steps=1, report_to="none", save_strategy="no", seed=0,
        train_sampling_strategy="sequential", optim="adamw_torch", disable_tqdm=True,
    )  # fmt: skip
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    parts = {"train_dataset": dataset, "processing_class": tokenizer, "peft_config": config}
    model = plain_model(stage.model.path)
    torch.manual_seed(stage.seed)
    if stage.SEQUENCES == 1:
        arguments: Any = SFTConfig(**settings, dataset_kwargs={"skip_prepare_dataset": True})
        trainer: Any = SFTTrainer(model, args=arguments, **parts)
    else:
        # Its reference is the live model with the adapter switched off.
        arguments = DPOConfig(**settings, beta=stage.beta)
        parts["train_dataset"] = dataset.remove_columns(["ref_chosen_logps", "ref_rejected_logps"])
        trainer = type("Tokenized", (DPOTrainer,), {"_prepare_dataset": lambda self, rows, *_, **__: rows})(
            model, args=arguments, **parts
        )
    trainer.train()
    return [point["loss"] for point in trainer.state.log_history if "loss" in point]


def test_the_output_is_a_small_adapter_that_names_its_base_and_keeps_the_tokenizer(tmp_path: Path) -> None:
    stage = sft(tmp_path, lora=ADAPTER, epochs=2)
    before = (tmp_path / "model/model.safetensors").read_bytes()
    out = trained(stage, tmp_path) / "model"
    assert (tmp_path / "model/model.safetensors").read_bytes() == before
    assert not (out / "model.safetensors").exists()
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tmp_path / "model")
    ours, theirs = (AutoTokenizer.from_pretrained(path) for path in (out, tmp_path / "model"))
    assert ours.chat_template == theirs.chat_template
    from safetensors.torch import load_file

    count = sum(tensor.numel() for tensor in load_file(out / "adapter_model.safetensors").values())
    assert (known := architecture_of(stage.model)) is not None
    assert count == ADAPTER.parameters(known)


def test_no_identity_changes_without_an_adapter_and_every_setting_of_one_enters_it(tmp_path: Path) -> None:
    stage = sft(tmp_path)
    others = [LoRA(), LoRA(rank=8), LoRA(alpha=1), LoRA(targets=("q_proj",)), LoRA(dropout=0.1)]
    assert len({stage.fingerprint, *(dataclasses.replace(stage, lora=other).fingerprint for other in others)}) == 6
    assert dataclasses.replace(stage, lora=LoRA()).label() == f"{stage.label()},rank=16"


@dataclasses.dataclass(frozen=True)
class Before:
    a: int = 1


@dataclasses.dataclass(frozen=True)
class After:
    a: int = 1
    b: int | None = dataclasses.field(default=None, metadata=LATER)


def test_a_field_that_came_later_is_left_out_at_its_default_only() -> None:
    After.__name__ = Before.__name__
    assert fingerprint(After()) == fingerprint(Before())
    assert fingerprint(After(b=0)) != fingerprint(Before())


@pytest.mark.parametrize("backend", ["slots", "transformers"])
def test_a_pair_of_base_and_adapter_decodes_on_one_set_of_weights_like_the_merged_pair(tmp_path, backend) -> None:
    stage, prompts = sft(tmp_path, lora=ADAPTER, epochs=3, learning_rate=3e-2), made_prompts(tmp_path)
    trained(stage, tmp_path)
    shared = ContrastiveGenerate(post=stage, pre=stage.model, prompts=prompts, alpha=0.4, max_new_tokens=8)
    other = make_model(tmp_path / "other", seed=5)
    apart = dataclasses.replace(shared, pre=other)
    whole = _peft_merged(stage, tmp_path)
    for ours in (shared, apart):
        out = trained(ours, tmp_path, backend=backend, actors=0, ray=False)
        theirs = trained(dataclasses.replace(ours, post=whole), tmp_path, backend=backend, actors=0, ray=False)
        for mine, row in zip(read_rows(out / RESPONSES), read_rows(theirs / RESPONSES), strict=True):
            assert mine["response_token_ids"] == row["response_token_ids"]
            assert mine["implicit_reward"] == pytest.approx(row["implicit_reward"], abs=1e-4)
        assert (out / ".scratch" / "merged").exists() == (ours is apart)
    halves = [one.memory(resources(actors=0)) for one in (shared, dataclasses.replace(shared, post=whole))]
    assert 2 * needed(halves[0]).weights == needed(halves[1]).weights
    score = Score(responses=shared, judge=ImplicitReward(post=stage, pre=stage.model))
    scored = read_rows(trained(score, tmp_path, actors=0, ray=False) / "scores.parquet")
    decoded = read_rows(locate(tmp_path)(shared) / RESPONSES)
    assert [row["reward"] for row in scored] == pytest.approx([row["implicit_reward"] for row in decoded], abs=1e-4)


def _peft_merged(stage, tmp_path: Path):
    from peft import PeftModel

    from cong.models import LocalModel

    target = tmp_path / "merged"
    adapter = locate(tmp_path)(stage) / "model"
    merged: Any = PeftModel.from_pretrained(plain_model(stage.model.path), str(adapter))
    merged.merge_and_unload().save_pretrained(target)
    AutoTokenizer.from_pretrained(adapter).save_pretrained(target)
    return LocalModel(path=str(target))


def test_an_adapter_is_trained_on_an_adapter_from_its_merged_policy(tmp_path: Path) -> None:
    first = sft(tmp_path, rows=16, lora=ADAPTER)
    second = dataclasses.replace(dpo(tmp_path, rows=16, lora=LoRA(rank=2)), model=first)
    assert (adapter_base(second), adapter_base(first)) == (first, first.model)
    assert first in Generate(model=second, prompts=second.data, max_new_tokens=1).inputs
    curve = losses(trained(second, tmp_path))
    assert curve[0] == pytest.approx(0.693147, abs=1e-5)
    answers = Generate(model=second, prompts=made_prompts(tmp_path), max_new_tokens=4)
    out = trained(answers, tmp_path, actors=0, ray=False)
    assert all(row["error"] is None for row in read_rows(out / RESPONSES))
    assert summary(out)["backend"] == "slots"


def test_other_micro_batches_change_no_loss_of_an_adapter(tmp_path: Path) -> None:
    stage = dpo(tmp_path, rows=16, lora=ADAPTER, epochs=3, learning_rate=3e-2)
    small, large = (losses(run(stage, tmp_path / str(size), micro_tokens=16 * size)) for size in (2, 8))
    assert small == pytest.approx(large, abs=1e-5)
    assert small[-1] < 0.69


def test_the_dropout_of_an_adapter_is_on_and_the_reference_has_none(tmp_path: Path) -> None:
    stage = dpo(tmp_path, rows=16, epochs=2, learning_rate=3e-2, lora=LoRA(rank=4, dropout=0.5))
    without = dataclasses.replace(stage, lora=LoRA(rank=4))
    dropped, plain = losses(trained(stage, tmp_path)), losses(trained(without, tmp_path))
    assert dropped[0] == pytest.approx(0.693147, abs=1e-5)
    assert abs(dropped[-1] - plain[-1]) > 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank = 0 is below 1"),
        ({"alpha": 0}, "alpha = 0 is not above 0"),
        ({"targets": ()}, "neither 'all-linear' nor a tuple"),
        ({"targets": "q_proj"}, "neither 'all-linear' nor a tuple"),
        ({"dropout": 1.0}, r"dropout = 1.0 is not in \[0, 1\)"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        LoRA(**settings)


def test_an_adapter_needs_states_for_its_own_parameters_only(tmp_path: Path) -> None:
    whole, adapted = sft(tmp_path), sft(tmp_path, lora=ADAPTER)
    for execution in ({}, {"workers": 2, "deepspeed": "zero3"}):
        needs = [needed(stage.memory(resources(**execution))) for stage in (whole, adapted)]
        assert needs[1].states < needs[0].states / 3
        assert needs[1].weights >= needs[0].weights
