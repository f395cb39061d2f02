"""Training in the calling process: what is learned, what is written, and that execution does not enter it."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from test_training_tiny import dpo, losses, make_model, make_pairs, resources, run, sft, summary, texts

from cong.data import read_rows, write_rows
from cong.errors import NothingLeft
from cong.models import LocalModel


def test_sft_lowers_the_loss_and_writes_a_whole_checkpoint(tmp_path: Path) -> None:
    out = run(sft(tmp_path, epochs=3), tmp_path / "store")
    curve = losses(out)
    assert len(curve) == 15
    assert curve[-1] < 0.8 * curve[0]
    assert summary(out)["train_loss"] == curve[-1]
    assert summary(out)["rows"] == 40
    assert {path.name for path in out.iterdir()} == {
        "metrics.jsonl", "model", "progress.json", "summary.json", "training.json",
    }  # fmt: skip


def test_the_trained_model_keeps_tokenizer_chat_template_and_generation_settings(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stage = sft(tmp_path)
    trained = run(stage, tmp_path / "store") / "model"
    assert (trained / "generation_config.json").read_text() == (tmp_path / "model/generation_config.json").read_text()
    before, after = (AutoTokenizer.from_pretrained(path) for path in (tmp_path / "model", trained))
    assert after.chat_template == before.chat_template
    assert after.get_vocab() == before.get_vocab()
    assert AutoModelForCausalLM.from_pretrained(trained).num_parameters() > 10_000
    assert not list(trained.glob("*.bin"))


def test_dpo_begins_at_log_2_lowers_the_loss_and_widens_the_margin(tmp_path: Path) -> None:
    stage = dpo(tmp_path, epochs=3)
    out = run(stage, tmp_path / "store")
    curve = losses(out)
    assert curve[0] == pytest.approx(0.693147, abs=1e-5)
    assert sum(curve[-3:]) / 3 < 0.6
    assert read_margin(out) > 0.1


def read_margin(out: Path) -> float:
    import json

    return json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["rewards/margins"]


def test_other_micro_batches_change_no_loss(tmp_path: Path) -> None:
    for stage in (sft(tmp_path, rows=21, epochs=2), dpo(tmp_path, rows=21, epochs=2)):
        small = losses(run(stage, tmp_path / "small", micro_tokens=40))
        large = losses(run(stage, tmp_path / "large", micro_tokens=4096))
        assert small == pytest.approx(large, abs=1e-5)


def test_cached_reference_logprobs_give_the_loss_of_trls_own_computation(tmp_path: Path) -> None:
    stage = dpo(tmp_path, rows=24)
    ours = losses(run(stage, tmp_path / "store", micro_tokens=4096))
    assert ours == pytest.approx(_plain_trl_losses(stage, tmp_path), abs=1e-5)


def _plain_trl_losses(stage, tmp_path: Path) -> list[float]:
    """Train with TRL's own DPOTrainer: its tokenization, its collator, its live reference model, the same order."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from cong.training.order import row_order
    from cong.training.rows import preference_rows

    rows = texts(rows=24)
    tokenizer = AutoTokenizer.from_pretrained(stage.model.path)
    lengths = preference_rows(tokenizer, rows, max_length=stage.max_length).lengths
    order = row_order(lengths=lengths, epochs=1, global_batch_size=8, seed=0)
    turns = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in (rows[index] for index in order)
    ]
    config = DPOConfig(
        output_dir=str(tmp_path / "trl"), beta=stage.beta, learning_rate=stage.learning_rate, num_train_epochs=1,
        per_device_train_batch_size=8, lr_scheduler_type="cosine", warmup_steps=0.1, max_length=2048, use_cpu=True,
        bf16=False, gradient_checkpointing=False, logging_steps=1, report_to="none", save_strategy="no",
        train_sampling_strategy="sequential", optim="adamw_torch", disable_tqdm=True, seed=0,
        model_init_kwargs={"device_map": None, "dtype": "float32"},
    )  # fmt: skip
    trainer = DPOTrainer(
        stage.model.path, args=config, train_dataset=Dataset.from_list(turns), processing_class=tokenizer
    )
    trainer.train()
    return [point["loss"] for point in trainer.state.log_history if "loss" in point]


def test_reference_logprobs_are_one_stage_for_every_beta_and_learning_rate(tmp_path: Path) -> None:
    stage = dpo(tmp_path)
    others = [dataclasses.replace(stage, beta=0.1), dataclasses.replace(stage, learning_rate=1e-4)]
    assert {other.reference.fingerprint for other in others} == {stage.reference.fingerprint}
    assert stage.reference in stage.inputs
    assert len({other.fingerprint for other in (stage, *others)}) == 3


def test_a_pair_of_identical_responses_has_identical_reference_logprobs(tmp_path: Path) -> None:
    stage = dpo(tmp_path, rows=9)
    rows = [{**row, "rejected": row["chosen"]} for row in texts(rows=9)]
    write_rows(tmp_path / "pairs" / "pairs.parquet", rows)
    found = read_rows(run(stage.reference, tmp_path / "store") / "reference.parquet")
    assert {row["prompt_id"] for row in found} == {row["prompt_id"] for row in rows}
    for row in found:
        assert row["ref_chosen_logp"] == pytest.approx(row["ref_rejected_logp"], abs=1e-4)
        assert row["ref_chosen_logp"] < 0


def test_rows_with_an_error_are_left_out_and_counted(tmp_path: Path) -> None:
    stage = sft(tmp_path, rows=16)
    path = tmp_path / "responses" / "responses.parquet"
    rows = read_rows(path)
    rows[0] |= {"error": "out of memory", "response": None}
    rows[1] |= {"finish_reason": "length"}
    write_rows(path, rows)
    told = summary(run(stage, tmp_path / "store"))
    assert (told["rows"], told["rows_unusable"], told["rows_cut_off"]) == (15, 1, 1)


def test_no_usable_row_is_an_error(tmp_path: Path) -> None:
    stage = sft(tmp_path, rows=4)
    path = tmp_path / "responses" / "responses.parquet"
    write_rows(path, [{**row, "error": "lost"} for row in read_rows(path)])
    with pytest.raises(NothingLeft, match=r"no row .* can be trained on"):
        run(stage, tmp_path / "store")


def test_a_step_of_fewer_rows_than_workers_is_refused_before_anything_starts(tmp_path: Path) -> None:
    stage = sft(tmp_path, global_batch_size=8)
    with pytest.raises(ValueError, match="global_batch_size = 8 is fewer rows than there are workers, 9"):
        run(stage, tmp_path / "store", workers=9)
    with pytest.raises(ValueError, match="fewer rows"):
        stage.demand(resources(workers=12))
    stage.demand(resources(workers=3))


def test_a_loss_that_is_not_a_number_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="diverged"):
        run(sft(tmp_path, learning_rate=1e30, warmup_ratio=0.0, epochs=3), tmp_path / "store")


def test_a_finished_training_that_was_not_published_is_not_repeated(tmp_path: Path) -> None:
    stage = sft(tmp_path)
    out = run(stage, tmp_path / "store")
    before = (out / "model" / "model.safetensors").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "model")
    make_model(tmp_path / "model")
    run(stage, tmp_path / "store")
    assert (out / "model" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("field", "value"),
    [("learning_rate", 0.0), ("epochs", 0), ("warmup_ratio", 1.0), ("global_batch_size", 0), ("max_length", 1)],
)
def test_a_hyper_parameter_out_of_range_is_refused(tmp_path: Path, field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        sft(tmp_path, rows=1, **{field: value})


def test_a_beta_of_zero_is_refused(tmp_path: Path) -> None:
    model, data = LocalModel(path=str(tmp_path)), make_pairs(tmp_path / "pairs", rows=1)
    from cong.training import DPO

    with pytest.raises(ValueError, match="beta"):
        DPO(model=model, data=data, beta=0.0, learning_rate=1e-4)
