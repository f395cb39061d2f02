"""RAVEN: its loss and the gradient of the weights by hand, what weights do to a training, and resuming."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training_tiny import WORDS, Given, losses, make_model, make_pairs, run, summary, texts

from cong.data import MARGINS, write_rows
from cong.errors import UserError
from cong.training import DPO, Raven
from cong.training.raven import WEIGHTS, easy_loss, moved, raven_loss


def raven(tmp_path: Path, *, margins: list[list[float]], **fields: Any) -> Raven:
    """Return RAVEN on pairs with these margins of the members."""
    data = make_pairs(tmp_path / "pairs", rows=len(margins))
    made = [{**row, MARGINS: one} for row, one in zip(told_apart(rows=len(margins)), margins, strict=True)]
    write_rows(tmp_path / "pairs" / "pairs.parquet", made)
    given = {"learning_rate": 2e-3, "global_batch_size": 8, "beta": 0.5, "rate": 0.5, "easy": 0.5, "epochs": 2}
    return Raven(**{"model": make_model(tmp_path / "model"), "data": data, **given, **fields})


def told_apart(*, rows: int) -> list[dict]:
    """Return pairs of which a student that has learned some knows the others: the sides have words of their own."""
    half = len(WORDS) // 2
    return [
        row | {side: " ".join(WORDS[start + (number + place) % half] for place in range(4)) for side, start in sides}
        for number, row in enumerate(texts(rows=rows))
        for sides in [(("chosen", 0), ("rejected", half))]
    ]


def shifted(*, rows: int = 24) -> list[list[float]]:
    """Return margins of two members that are for every chosen response, and of one that is against each other one."""
    return [[1.0, 0.8, 1.0 if number % 2 else -1.0] for number in range(rows)]


def weights(out: Path) -> list[float]:
    return json.loads((out / WEIGHTS).read_text())


def points(out: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (out / "metrics.jsonl").read_text().splitlines()]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_the_loss_of_a_batch_is_computed_by_hand():
    ratios, margins, w = [0.4, -0.7], [[1.0, -0.5], [-2.0, 0.3]], [0.75, 0.25]
    found = raven_loss(ratios=torch.tensor(ratios), margins=torch.tensor(margins), weights=torch.tensor(w), beta=0.1)
    expected = []
    for h, both in zip(ratios, margins, strict=True):
        c = sum(weight * (2 * sigmoid(margin) - 1) for weight, margin in zip(w, both, strict=True))
        expected.append(math.log1p(math.exp(-(0.1 + abs(c)) * math.copysign(1, c) * h)))
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    # The second pair is turned, and the student already agrees with that.
    assert expected[1] < math.log(2)


def test_the_gradients_of_student_and_weights_are_those_of_finite_differences():
    made = torch.Generator().manual_seed(0)
    ratios, margins = torch.randn(6, generator=made).double(), torch.randn(6, 3, generator=made).double()
    w = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)

    def loss(ratios: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return raven_loss(ratios=ratios, margins=margins, weights=w, beta=0.1).mean()

    both = ratios.clone().requires_grad_(), w.clone().requires_grad_()
    gradients = torch.autograd.grad(loss(*both), both)
    for which, gradient in enumerate(gradients):
        for place in range(len(gradient)):
            step = torch.zeros_like(gradient)
            step[place] = 1e-6
            ahead, behind = ([ratios, w] for _ in range(2))
            ahead[which], behind[which] = ahead[which] + step, behind[which] - step
            found = ((loss(*ahead) - loss(*behind)) / 2e-6).item()
            assert gradient[place].item() == pytest.approx(found, abs=1e-8)


def test_a_member_that_agrees_with_the_student_gains_weight_over_one_that_does_not():
    ratios, margins = torch.tensor([2.0, 1.0]), torch.tensor([[1.0, -1.0], [2.0, -0.5]])
    w = torch.tensor([0.6, 0.4], requires_grad=True)
    (gradient,) = torch.autograd.grad(raven_loss(ratios=ratios, margins=margins, weights=w, beta=0.1).mean(), w)
    after = moved(w.detach(), gradient=gradient, rate=0.5)
    assert after[0] > 0.6
    assert after.sum().item() == pytest.approx(1.0)
    far = moved(w.detach(), gradient=gradient, rate=1e6)
    assert 0 < far.min() < 1e-5


def test_the_easy_loss_is_that_of_dpo_on_the_pairs_on_which_all_agree_and_nothing_on_others():
    ratios = torch.tensor([0.4, 0.4, 0.4, 0.4])
    margins = torch.tensor([[1.0, 2.0], [1.0, -2.0], [-1.0, -2.0], [0.0, 2.0]])
    found = easy_loss(ratios=ratios, margins=margins, beta=0.5)
    expected = [math.log1p(math.exp(-0.2)), 0.0, math.log1p(math.exp(0.2)), 0.0]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_an_easy_phase_over_the_whole_training_with_members_of_one_mind_is_plain_dpo(tmp_path):
    stage = raven(tmp_path, margins=[[1.0, 2.0]] * 24, easy=2.0)
    plain = DPO(**{item.name: getattr(stage, item.name) for item in dataclasses.fields(DPO) if item.init})
    out, other = run(stage, tmp_path / "raven"), run(plain, tmp_path / "plain")
    assert losses(out) == pytest.approx(losses(other), abs=1e-6)
    assert weights(out) == [0.5, 0.5]
    assert losses(out)[-1] < losses(out)[0]


def test_identical_members_keep_their_weights_uniform(tmp_path):
    margins = [[(-1.0) ** number, (-1.0) ** number, (-1.0) ** number] for number in range(24)]
    out = run(raven(tmp_path, margins=margins), tmp_path / "store")
    assert weights(out) == pytest.approx([1 / 3] * 3, abs=1e-12)


def test_the_weight_of_a_member_that_contradicts_the_others_falls(tmp_path):
    stage = raven(tmp_path, margins=shifted(), learning_rate=5e-3, epochs=4, easy=1.0)
    out = run(stage, tmp_path / "store")
    one, other, third = weights(out)
    assert third < 1 / 3 < min(one, other)
    assert sum(weights(out)) == pytest.approx(1.0)
    told = summary(out)
    assert [told[f"weight_{number}"] for number in (1, 2, 3)] == weights(out)
    curve = points(out, "weights/3")
    # One epoch is three steps: nothing moves in the easy one.
    assert curve[:3] == [1 / 3] * 3
    assert curve[3] < 1 / 3
    assert curve[-1] == third


def test_with_a_rate_of_0_the_weights_stay_and_the_student_is_another(tmp_path):
    stage = raven(tmp_path, margins=shifted(), rate=5.0, learning_rate=5e-3, epochs=4)
    fixed = dataclasses.replace(stage, rate=0.0)
    out, other = run(stage, tmp_path / "store"), run(fixed, tmp_path / "store")
    assert weights(other) == pytest.approx([1 / 3] * 3, abs=1e-15)
    assert losses(out) != losses(other)
    # Until the weights have moved, both are one training.
    assert losses(out)[:3] == losses(other)[:3]


def test_one_member_has_the_weight_1(tmp_path):
    assert weights(run(raven(tmp_path, margins=[[1.0]] * 16), tmp_path / "store")) == [1.0]


def test_other_micro_batches_change_neither_losses_nor_weights(tmp_path):
    stage = raven(tmp_path, margins=shifted())
    few, many = (run(stage, tmp_path / str(size), micro_tokens=16 * size) for size in (2, 8))
    assert losses(few) == pytest.approx(losses(many), abs=1e-5)
    assert weights(few) == pytest.approx(weights(many), abs=1e-6)
    assert weights(few)[2] < 1 / 3


def test_a_training_that_ended_before_its_model_was_saved_goes_on_with_its_weights(tmp_path, monkeypatch):
    from cong.training import loop

    stage = raven(tmp_path, margins=shifted(), epochs=4)
    undisturbed = run(stage, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_model", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(stage, tmp_path / "ended", checkpoint_seconds=0.0)
    out = run(stage, tmp_path / "ended")
    assert summary(out)["resumed_at_step"] == 11
    assert weights(out) == weights(undisturbed)
    assert losses(out) == losses(undisturbed)
    assert points(out, "weights/3") == points(undisturbed, "weights/3")


def test_pairs_without_margins_and_values_out_of_range_are_one_line(tmp_path):
    stage = raven(tmp_path, margins=shifted(rows=8))
    for changed, message in (
        ({"rate": -1.0}, "rate = -1.0"),
        ({"rate": math.nan}, "rate = nan"),
        ({"easy": 3.0}, r"easy = 3.0 is not in \[0, 2\]"),
        ({"weighted": True}, "weighted is not for RAVEN"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(stage, **changed)
    bare = dataclasses.replace(stage, data=make_pairs(tmp_path / "bare", rows=8))
    with pytest.raises(UserError, match="Given holds no pairs with a margin per member in a column 'margins'"):
        run(bare, tmp_path / "store")


def test_rate_and_easy_phase_enter_the_fingerprint_and_the_reference_is_that_of_dpo(tmp_path):
    stage = raven(tmp_path, margins=shifted(rows=8))
    made = [stage, dataclasses.replace(stage, rate=0.1), dataclasses.replace(stage, easy=1.0)]
    assert len({one.fingerprint for one in made}) == 3
    assert len({one.reference.fingerprint for one in made}) == 1
    assert isinstance(stage.data, Given)
    assert stage.label() == "rate=0.5,easy=0.5,beta=0.5,lr=0.002"
