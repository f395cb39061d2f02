"""ORPO: the odds ratio by hand, the whole objective against TRL's own trainer."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from test_training_tiny import Given, losses, make_model, make_pairs, run, texts

from cong.models import LocalModel
from cong.training import ORPO, LoRA
from cong.training.finetune import Finetune
from cong.training.orpo import odds_ratio_loss
from cong.training.rows import preference_rows

OTHER_FIELDS: dict[str, Any] = {
    "data": Given(directory="elsewhere"), "learning_rate": 1e-6, "epochs": 7, "global_batch_size": 16,
    "scheduler": "linear", "warmup_ratio": 0.3, "max_length": 77, "weight_decay": 0.1, "seed": 5,
    "lora": LoRA(rank=3),
}  # fmt: skip


def orpo(tmp_path: Path, *, rows: int = 40, **fields) -> ORPO:
    model, data = make_model(tmp_path / "model"), make_pairs(tmp_path / "pairs", rows=rows)
    given = {"model": model, "data": data, "weight": 0.5, "learning_rate": 5e-3, "global_batch_size": 8}
    return ORPO(**{**given, **fields})


def check_every_field_enters(stage: Finetune, tmp_path: Path, **others) -> None:
    """Change each field that can be given, one at a time: no fingerprint may come twice."""
    others = {**OTHER_FIELDS, "model": make_model(tmp_path / "other", seed=3), **others}
    assert set(others) == {item.name for item in dataclasses.fields(stage) if item.init}
    changed = [dataclasses.replace(stage, **{name: value}) for name, value in others.items()]
    assert len({other.fingerprint for other in (stage, *changed)}) == len(others) + 1


def trl_losses(stage: Finetune, tmp_path: Path, *, rows: int, trainer: Any, config: Any, **settings) -> list[float]:
    """Train with one of TRL's own trainers: its tokenization, collator and loss; the same order and full batches."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    from cong.training.order import row_order
    from cong.training.rows import preference_rows

    assert isinstance(stage.model, LocalModel)
    tokenizer = AutoTokenizer.from_pretrained(stage.model.path)
    given = texts(rows=rows)
    lengths = preference_rows(tokenizer, given, max_length=stage.max_length).lengths
    order = row_order(lengths=lengths, epochs=1, global_batch_size=8, seed=0)
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    turns = [{side: [{"role": roles[side], "content": given[index][side]}] for side in roles} for index in order]
    args = config(
        output_dir=str(tmp_path / "trl"), learning_rate=stage.learning_rate, num_train_epochs=1, use_cpu=True,
        per_device_train_batch_size=8, lr_scheduler_type="cosine", warmup_steps=0.1, max_length=2048, bf16=False,
        gradient_checkpointing=False, logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
        train_sampling_strategy="sequential", optim="adamw_torch", seed=0,
        model_init_kwargs={"device_map": None, "dtype": "float32"}, **settings,
    )  # fmt: skip
    made = trainer(stage.model.path, args=args, train_dataset=Dataset.from_list(turns), processing_class=tokenizer)
    made.train()
    return [point["loss"] for point in made.state.log_history if "loss" in point]


def end_at_end_of_turn(model: Path) -> None:
    """Drop the newline after a turn: TRL's older trainers would add a second end of turn behind it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = str(tokenizer.chat_template).replace("<|im_end|>\n{% endfor %}", "<|im_end|>{% endfor %}")
    tokenizer.save_pretrained(model)


def test_the_odds_ratio_of_four_to_one_is_learned_by_hand() -> None:
    import torch

    chosen, rejected = torch.tensor([0.8, 0.5]).log(), torch.tensor([0.5, 0.8]).log()
    found = odds_ratio_loss(chosen=chosen, rejected=rejected, weight=0.5)
    assert found.tolist() == pytest.approx([-0.5 * math.log(4 / 5), -0.5 * math.log(1 / 5)], abs=1e-6)


def test_a_certain_response_keeps_a_finite_loss_and_gradient() -> None:
    import torch

    chosen = torch.tensor([0.0, -30.0], requires_grad=True)
    loss = odds_ratio_loss(chosen=chosen, rejected=torch.tensor([-30.0, 0.0]), weight=1.0)
    loss.sum().backward()
    assert chosen.grad is not None
    assert torch.isfinite(loss).all()
    assert torch.isfinite(chosen.grad).all()


def test_orpo_losses_equal_those_of_trls_own_trainer_with_the_likelihood_of_the_response(tmp_path: Path) -> None:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class ResponseOnly(ORPOTrainer):
        def concatenated_forward(self, model: Any, batch: Any) -> Any:
            found = super().concatenated_forward(model, batch)
            tokens = (batch["chosen_labels"][:, 1:] != -100).sum(dim=1)
            # The first entry holds each chosen response's mean log-probability, the fifth the likelihood loss.
            return (*found[:4], -(found[0] * tokens).sum() / tokens.sum())

    stage = orpo(tmp_path, rows=24)
    end_at_end_of_turn(tmp_path / "model")
    expected = trl_losses(stage, tmp_path, rows=24, trainer=ResponseOnly, config=ORPOConfig, beta=stage.weight)
    assert losses(run(stage, tmp_path / "store", micro_tokens=4096)) == pytest.approx(expected, abs=1e-5)


def test_orpo_lowers_its_loss_and_other_micro_batches_change_none(tmp_path: Path) -> None:
    stage = orpo(tmp_path, rows=21, epochs=3)
    small, large = (losses(run(stage, tmp_path / str(size), micro_tokens=16 * size)) for size in (2, 8))
    assert small == pytest.approx(large, abs=1e-5)
    assert large[-1] < 0.95 * large[0]


def test_the_prompt_of_a_pair_has_no_likelihood_to_raise(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stage = orpo(tmp_path, rows=8, weight=0.0)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    rows = preference_rows(AutoTokenizer.from_pretrained(tmp_path / "model"), texts(rows=8), max_length=128).columns
    logps = [_logps(model, *pair) for pair in zip(rows["prompt_ids"], rows["chosen_ids"], strict=True)]
    mean = -sum(float(row.sum()) for row in logps) / sum(map(len, logps))
    assert losses(run(stage, tmp_path / "store"))[0] == pytest.approx(mean, abs=1e-5)


def _logps(model: Any, prompt: Any, response: Any) -> Any:
    import torch

    ids = torch.tensor([[*prompt.tolist(), *response.tolist()]])
    with torch.no_grad():
        scores = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(dim=-1)
    return scores.gather(-1, torch.tensor(response)[:, None].long())[:, 0]


def test_without_weight_only_the_likelihood_is_left(tmp_path: Path) -> None:
    out = run(orpo(tmp_path, rows=16, weight=0.0), tmp_path / "store")
    points = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [point["loss"] for point in points] == pytest.approx([point["nll_loss"] for point in points], abs=1e-5)


def test_every_field_of_orpo_enters_the_fingerprint(tmp_path: Path) -> None:
    check_every_field_enters(orpo(tmp_path, rows=1), tmp_path, weight=0.7)


def test_a_negative_weight_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weight = -1"):
        orpo(tmp_path, rows=1, weight=-1.0)
