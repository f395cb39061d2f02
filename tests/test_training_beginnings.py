"""What a training begins with: its learning rates, no dropout, and a template that teaches to end."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_training_tiny import TEMPLATE, dpo, losses, make_model, make_pairs, make_responses, run, sft

from cong.errors import UserError
from cong.models import LocalModel
from cong.training import DPO, SFT, WSPO, SimPO
from cong.training.endings import check_ending
from cong.training.settings import warmup_steps


def curve(out: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (out / "metrics.jsonl").read_text().splitlines()]


def rewrite(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("scheduler", ["polynomial", "constant", "cosine_with_restarts"])
@pytest.mark.parametrize("warmup", [0.1, 0.9])
def test_a_training_of_one_step_has_the_whole_learning_rate(tmp_path: Path, scheduler: str, warmup: float) -> None:
    out = run(sft(tmp_path, rows=8, scheduler=scheduler, warmup_ratio=warmup), tmp_path / "store")
    assert curve(out, "learning_rate") == [5e-3]


@pytest.mark.parametrize(
    ("steps", "ratio", "expected"), [(1, 0.5, 0), (2, 0.1, 1), (3, 0.99, 2), (10, 0.1, 1), (11, 0.1, 2), (100, 0.0, 0)]
)
def test_the_warm_up_leaves_at_least_one_step(steps: int, ratio: float, expected: int) -> None:
    assert warmup_steps(steps=steps, ratio=ratio) == expected


@pytest.mark.parametrize("scheduler", ["constant", "constant_with_warmup"])
def test_a_constant_learning_rate_is_reached_by_the_warm_up(tmp_path: Path, scheduler: str) -> None:
    out = run(sft(tmp_path, rows=32, scheduler=scheduler, warmup_ratio=0.5), tmp_path / "store")
    assert curve(out, "learning_rate") == pytest.approx([0.0, 2.5e-3, 5e-3, 5e-3])


def test_constant_with_a_warm_up_is_stored_under_the_name_of_what_it_computes(tmp_path: Path) -> None:
    one, other = (sft(tmp_path, rows=1, scheduler=name) for name in ("constant", "constant_with_warmup"))
    plain = sft(tmp_path, rows=1, scheduler="constant", warmup_ratio=0.0)
    assert one.fingerprint == other.fingerprint != plain.fingerprint
    assert plain.scheduler == "constant"


@pytest.mark.parametrize("scheduler", ["cosin", "reduce_lr_on_plateau", "warmup_stable_decay"])
def test_a_scheduler_that_cannot_be_run_is_refused_at_once(tmp_path: Path, scheduler: str) -> None:
    with pytest.raises(ValueError, match="scheduler"):
        sft(tmp_path, rows=1, scheduler=scheduler)


def gpt2(directory: Path, **config: Any) -> LocalModel:
    """Write a GPT-2 whose configuration names its dropouts in other ways, beside the usual tokenizer."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    make_model(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    torch.manual_seed(0)
    made = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None, pad_token_id=tokenizer.pad_token_id, **config,
    )  # fmt: skip
    GPT2LMHeadModel(made).save_pretrained(directory)
    return LocalModel(path=str(directory))


def test_dropout_of_any_name_gives_dpo_no_margin_at_its_first_step(tmp_path: Path) -> None:
    model = gpt2(tmp_path / "model", resid_pdrop=0.3, embd_pdrop=0.2, attn_pdrop=0.4)
    stage = DPO(
        model=model, data=make_pairs(tmp_path / "pairs", rows=8), beta=0.5, learning_rate=1e-4, global_batch_size=8
    )
    out = run(stage, tmp_path / "store")
    assert curve(out, "rewards/margins")[0] == pytest.approx(0.0, abs=1e-5)
    kept = json.loads((out / "model" / "config.json").read_text())
    assert (kept["resid_pdrop"], kept["embd_pdrop"], kept["attn_pdrop"]) == (0.3, 0.2, 0.4)


def test_dropout_of_the_attention_changes_no_loss_of_any_method(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    data, pairs = make_responses(tmp_path / "responses", rows=16), make_pairs(tmp_path / "pairs", rows=16)
    common = {"model": model, "learning_rate": 1e-3, "global_batch_size": 8}
    stages = [
        SFT(data=data, **common),
        SimPO(data=pairs, beta=2.0, gamma=1.0, **common),
        WSPO(data=data, post=model, pre=model, beta=1.0, **common),
    ]
    plain = [losses(run(stage, tmp_path / "plain")) for stage in stages]
    rewrite(tmp_path / "model" / "config.json", attention_dropout=0.5)
    assert [losses(run(stage, tmp_path / "dropout")) for stage in stages] == plain


UNENDED = {
    "plain text": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n\n{% endfor %}",
    "end before the response": (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}<|im_end|>{% else %}"
        "{{ m['content'] }}<|im_start|>{% endif %}{% endfor %}"
    ),
    "end of user turns only": (
        "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'user' %}<|im_end|>{% endif %}{% endfor %}"
    ),
}


@pytest.mark.parametrize("name", UNENDED)
def test_a_template_that_never_teaches_the_end_is_refused_before_the_run_and_in_it(tmp_path: Path, name: str) -> None:
    for folder, make in (("sft", sft), ("dpo", dpo)):
        stage = make(tmp_path / folder, rows=4)
        (tmp_path / folder / "model" / "chat_template.jinja").write_text(UNENDED[name])
        with pytest.raises(UserError, match="never teaches to end"):
            stage.check()
        with pytest.raises(UserError, match="never teaches to end"):
            run(stage, tmp_path / "store")


def test_a_checkpoint_without_a_template_is_refused_in_one_line(tmp_path: Path) -> None:
    stage = sft(tmp_path, rows=4)
    (tmp_path / "model" / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template"):
        stage.check()


def test_an_end_token_of_the_generation_settings_alone_is_an_end(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    path = Path(make_model(tmp_path / "model").path)
    (path / "chat_template.jinja").write_text(TEMPLATE.replace("<|im_end|>\n", "<|pad|>"))
    with pytest.raises(UserError, match=r"it writes '<\|pad\|>', and decoding stops at '<\|im_end\|>'"):
        check_ending(path, AutoTokenizer.from_pretrained(path))
    pad = AutoTokenizer.from_pretrained(path).pad_token_id
    rewrite(path / "generation_config.json", eos_token_id=[1_000, pad])
    check_ending(path, AutoTokenizer.from_pretrained(path))


def test_a_checkpoint_that_a_training_left_is_looked_at_by_way_of_its_own(tmp_path: Path) -> None:
    first = sft(tmp_path, rows=4)
    second = DPO(model=first, data=make_pairs(tmp_path / "pairs", rows=4), beta=0.5, learning_rate=1e-4)
    (tmp_path / "model" / "chat_template.jinja").write_text(UNENDED["plain text"])
    with pytest.raises(UserError, match="never teaches to end"):
        second.check()


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.9}, {"top_k": 5, "early_stopping": True}, {"length_penalty": 0.5, "num_beams": 1}]
)
def test_generation_settings_that_transformers_refuses_to_write_are_kept_as_they_are(tmp_path: Path, settings) -> None:
    stage = sft(tmp_path, rows=16)
    rewrite(tmp_path / "model" / "generation_config.json", do_sample=False, **settings)
    out = run(stage, tmp_path / "store", checkpoint_seconds=0.0)
    kept = (out / "model" / "generation_config.json").read_text()
    assert kept == (tmp_path / "model" / "generation_config.json").read_text()
