"""The auxiliary confidence loss: by hand, its warm-up, and that a weight of zero is SFT."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from test_training_orpo import check_every_field_enters
from test_training_tiny import losses, make_model, make_responses, run, sft

from cong.training import SFT, AuxConf
from cong.training.auxconf import auxiliary_weight, confidence_loss


def auxconf(tmp_path: Path, *, rows: int = 40, **fields) -> AuxConf:
    model, data = make_model(tmp_path / "model"), make_responses(tmp_path / "responses", rows=rows)
    return AuxConf(**{"model": model, "data": data, "learning_rate": 5e-3, "global_batch_size": 8, **fields})


def test_the_mixed_cross_entropy_of_two_tokens_is_computed_by_hand() -> None:
    import torch

    logits = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]).log() + 3.0
    found = confidence_loss(logits=logits, labels=torch.tensor([1, 2]), weight=0.4)
    assert found.tolist() == pytest.approx([0.6 * math.log(4) + 0.4 * math.log(2), -math.log(0.8)], abs=1e-6)


def test_the_gradient_is_that_of_a_cross_entropy_with_a_detached_prediction() -> None:
    import torch
    from torch.nn.functional import cross_entropy

    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 4])
    own = logits.detach().argmax(dim=-1)
    assert own.tolist() != labels.tolist()
    mixed = 0.7 * cross_entropy(logits, labels, reduction="sum") + 0.3 * cross_entropy(logits, own, reduction="sum")
    (expected,) = torch.autograd.grad(mixed, logits)
    (found,) = torch.autograd.grad(confidence_loss(logits=logits, labels=labels, weight=0.3).sum(), logits)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_the_weight_rises_linearly_over_the_first_tenth_and_stays() -> None:
    weights = [auxiliary_weight(step=step, steps=100, max_weight=0.5, warmup=0.1) for step in (0, 5, 10, 11, 99)]
    assert weights == pytest.approx([0.0, 0.25, 0.5, 0.5, 0.5])
    assert auxiliary_weight(step=0, steps=100, max_weight=0.75, warmup=0.0) == 0.75


def test_a_weight_of_zero_is_sft(tmp_path: Path) -> None:
    plain = sft(tmp_path, rows=21, epochs=2)
    given = {item.name: getattr(plain, item.name) for item in dataclasses.fields(SFT)}
    ours = run(AuxConf(**given, max_weight=0.0), tmp_path / "store")
    theirs = run(plain, tmp_path / "store")
    assert losses(ours) == pytest.approx(losses(theirs), abs=1e-6)


def test_auxconf_lowers_its_loss_and_other_micro_batches_change_none(tmp_path: Path) -> None:
    stage = auxconf(tmp_path, rows=21, epochs=4)
    small, large = (losses(run(stage, tmp_path / str(size), micro_tokens=16 * size)) for size in (2, 8))
    assert small == pytest.approx(large, abs=1e-5)
    assert large[-1] < 0.8 * large[0]


def test_the_curve_shows_the_weight_of_every_step(tmp_path: Path) -> None:
    out = run(auxconf(tmp_path, rows=16, epochs=5, weight_warmup=0.4), tmp_path / "store")
    points = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    expected = [0.0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert [point["auxiliary_weight"] for point in points] == pytest.approx(expected)


def test_every_field_of_auxconf_enters_the_fingerprint(tmp_path: Path) -> None:
    check_every_field_enters(auxconf(tmp_path, rows=1), tmp_path, max_weight=0.75, weight_warmup=0.2)


@pytest.mark.parametrize(("field", "value"), [("max_weight", 1.5), ("max_weight", -0.1), ("weight_warmup", 1.1)])
def test_a_weight_outside_of_zero_and_one_is_refused(tmp_path: Path, field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        auxconf(tmp_path, rows=1, **{field: value})
