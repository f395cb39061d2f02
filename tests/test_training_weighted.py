"""DPO with a weight per pair: the loss by hand, its gradient, and what weights of 0, 1 and c do to a training."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
from test_training_orpo import check_every_field_enters
from test_training_tiny import dpo, losses, make_model, make_pairs, run, texts

from cong.data import write_rows
from cong.errors import UserError
from cong.training import DPO, LoRA
from cong.training.dpo import dpo_loss


def weighted(tmp_path: Path, *, weight: float | list[float], rows: int = 24, **fields) -> DPO:
    """Return a weighted DPO on pairs with these weights."""
    stage = dpo(tmp_path, rows=rows, weighted=True, **fields)
    weights = weight if isinstance(weight, list) else [weight] * rows
    pairs = [{**row, "weight": one} for row, one in zip(texts(rows=rows), weights, strict=True)]
    write_rows(tmp_path / "pairs" / "pairs.parquet", pairs)
    return stage


def weights_of(model: Path) -> dict:
    from safetensors.torch import load_file

    (path,) = model.glob("*.safetensors")
    return load_file(path)


def points(out: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_of_a_batch_is_computed_by_hand() -> None:
    import torch

    chosen, rejected = torch.tensor([0.2, -0.5, 1.0]), torch.tensor([-0.3, 0.1, 1.0])
    weights = torch.tensor([0.25, 1.0, 0.0])
    found = (weights * dpo_loss(chosen=chosen, rejected=rejected, beta=2.0)).mean()
    by_hand = (0.25 * math.log1p(math.exp(-2 * 0.5)) + math.log1p(math.exp(2 * 0.6))) / 3
    assert found.item() == pytest.approx(by_hand, abs=1e-6)


def test_the_gradient_of_the_loss_is_that_of_finite_differences() -> None:
    import torch

    ratios = torch.tensor([[0.2, -0.5, 1.0], [-0.3, 0.1, 1.0]], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.25, 1.0, 0.0], dtype=torch.float64)

    def loss(values):
        return (weights * dpo_loss(chosen=values[0], rejected=values[1], beta=0.7)).mean()

    loss(ratios).backward()
    assert ratios.grad is not None
    step = 1e-6
    for place in range(6):
        moved = torch.zeros(6, dtype=torch.float64)
        moved[place] = step
        ahead, behind = (loss(ratios.detach() + sign * moved.view(2, 3)) for sign in (1, -1))
        assert ratios.grad.view(-1)[place].item() == pytest.approx(((ahead - behind) / (2 * step)).item(), abs=1e-8)
    assert ratios.grad[:, 2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)])
def test_weights_of_1_are_plain_dpo_to_the_last_bit(tmp_path: Path, lora: LoRA | None) -> None:
    import torch

    one = weighted(tmp_path, weight=1.0, epochs=2, lora=lora)
    outs = [
        run(stage, tmp_path / "store", micro_tokens=80) for stage in (one, dataclasses.replace(one, weighted=False))
    ]
    assert outs[0] != outs[1]
    assert losses(outs[0]) == losses(outs[1])
    found, plain = (weights_of(out / "model") for out in outs)
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    assert found.keys() == plain.keys()


def test_weights_of_0_leave_the_model_as_it_is(tmp_path: Path) -> None:
    import torch

    out = run(weighted(tmp_path, weight=0.0), tmp_path / "store")
    before, after = weights_of(tmp_path / "model"), weights_of(out / "model")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert losses(out) == [0.0] * 3
    assert set(points(out, "weight")) == {0.0}


def test_equal_weights_scale_the_gradient_of_plain_dpo(tmp_path: Path) -> None:
    third = run(weighted(tmp_path, weight=0.3), tmp_path / "third")
    whole = run(weighted(tmp_path, weight=1.0), tmp_path / "whole")
    assert losses(third)[0] == pytest.approx(0.3 * losses(whole)[0], rel=1e-5)
    assert points(third, "grad_norm")[0] == pytest.approx(0.3 * points(whole, "grad_norm")[0], rel=1e-5)


def test_the_gradient_of_equal_weights_points_where_that_of_dpo_does(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / "model").path)
    ids = torch.randint(model.config.vocab_size, (8, 12), generator=torch.Generator().manual_seed(0))

    def gradient(weight: float) -> torch.Tensor:
        model.zero_grad()
        logps = model(ids).logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None]).sum((1, 2))
        chosen, rejected = logps.chunk(2)
        (torch.full((4,), weight) * dpo_loss(chosen=chosen, rejected=rejected, beta=0.1)).mean().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    plain, less = gradient(1.0), gradient(0.4)
    assert torch.nn.functional.cosine_similarity(plain, less, dim=0).item() == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(less, 0.4 * plain, rtol=1e-4, atol=1e-9)


def test_a_pair_of_weight_0_counts_for_nothing_but_its_place_in_the_mean(tmp_path: Path) -> None:
    import torch

    weights = [0.0, 0.5] * 12
    first = run(weighted(tmp_path, weight=weights), tmp_path / "first")
    # A turned pair is as long as before, so that the rows of a step and their order stay the same.
    rows = [{**row, "weight": one} for row, one in zip(texts(rows=24), weights, strict=True)]
    turned = [
        row | {"chosen": row["rejected"], "rejected": row["chosen"]} if not row["weight"] else row for row in rows
    ]
    write_rows(tmp_path / "pairs" / "pairs.parquet", turned)
    second = run(weighted_again(tmp_path), tmp_path / "second")
    found, other = (weights_of(out / "model") for out in (first, second))
    assert all(torch.allclose(found[name], other[name], atol=1e-6) for name in found)


def weighted_again(tmp_path: Path) -> DPO:
    """Return the stage on the pairs that lie there already."""
    pairs = (tmp_path / "pairs" / "pairs.parquet").read_bytes()
    stage = dpo(tmp_path, rows=24, weighted=True)
    (tmp_path / "pairs" / "pairs.parquet").write_bytes(pairs)
    return stage


def test_other_micro_batches_change_no_loss_and_no_weight_in_the_curve(tmp_path: Path) -> None:
    stage = weighted(tmp_path, weight=[number / 24 for number in range(24)])
    small, large = (run(stage, tmp_path / str(size), micro_tokens=16 * size) for size in (2, 8))
    assert losses(small) == pytest.approx(losses(large), abs=1e-5)
    assert points(small, "weight") == pytest.approx(points(large, "weight"), abs=1e-6)
    assert sum(points(small, "weight")) / 3 == pytest.approx(23 / 48, abs=1e-6)


def test_a_pair_without_a_weight_and_a_weight_below_0_are_one_line(tmp_path: Path) -> None:
    stage = dpo(tmp_path, rows=4, weighted=True)
    with pytest.raises(UserError, match="weighted=True, and the pair of p0 in Given has no column 'weight'"):
        run(stage, tmp_path / "store")
    for wrong in (-0.1, math.nan):
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        with pytest.raises(UserError, match=f"the weight of p2 is {wrong}, and not a number of at least 0"):
            run(weighted(tmp_path, weight=[1.0, 1.0, wrong, 1.0], rows=4), tmp_path / "store")


def test_every_field_enters_the_fingerprint_and_plain_dpo_keeps_its_own(tmp_path: Path) -> None:
    stage = dpo(tmp_path, rows=1)
    check_every_field_enters(stage, tmp_path, beta=0.7, weighted=True)
    from cong.graph.fingerprint import fields_of

    assert "weighted" not in fields_of(stage)
    assert stage.label() == "beta=0.5,lr=0.002"
    assert dataclasses.replace(stage, weighted=True).label() == "beta=0.5,lr=0.002,weighted"
    assert dataclasses.replace(stage, weighted=True).reference == stage.reference
    assert make_pairs(tmp_path / "pairs", rows=1) == stage.data
