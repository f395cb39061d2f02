"""SimPO: the loss by hand, and against TRL's own trainer."""

import math
from pathlib import Path

import pytest
from test_training_orpo import check_every_field_enters, end_at_end_of_turn, trl_losses
from test_training_tiny import losses, make_model, make_pairs, run

from cong.training import SimPO
from cong.training.simpo import simpo_loss


def simpo(tmp_path: Path, *, rows: int = 40, **fields) -> SimPO:
    model, data = make_model(tmp_path / "model"), make_pairs(tmp_path / "pairs", rows=rows)
    given = {"model": model, "data": data, "beta": 2.0, "gamma": 1.0, "learning_rate": 5e-3, "global_batch_size": 8}
    return SimPO(**{**given, **fields})


def test_the_loss_of_a_margin_is_computed_by_hand() -> None:
    import torch

    found = simpo_loss(chosen=torch.tensor([-1.0, -2.0]), rejected=torch.tensor([-2.0, -1.0]), beta=2.0, gamma=1.0)
    assert found.tolist() == pytest.approx([math.log1p(math.exp(-1.0)), math.log1p(math.exp(3.0))], abs=1e-6)


def test_simpo_losses_equal_those_of_trls_own_trainer(tmp_path: Path) -> None:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    stage = simpo(tmp_path, rows=24)
    end_at_end_of_turn(tmp_path / "model")
    named = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": stage.beta, "simpo_gamma": stage.gamma}
    expected = trl_losses(stage, tmp_path, rows=24, trainer=CPOTrainer, config=CPOConfig, **named)
    assert losses(run(stage, tmp_path / "store", micro_tokens=4096)) == pytest.approx(expected, abs=1e-5)


def test_simpo_lowers_its_loss_and_other_micro_batches_change_none(tmp_path: Path) -> None:
    stage = simpo(tmp_path, rows=21, epochs=4)
    small, large = (losses(run(stage, tmp_path / str(size), micro_tokens=16 * size)) for size in (2, 8))
    assert small == pytest.approx(large, abs=1e-5)
    assert sum(large[-3:]) < 0.95 * sum(large[:3])


def test_every_field_of_simpo_enters_the_fingerprint(tmp_path: Path) -> None:
    check_every_field_enters(simpo(tmp_path, rows=1), tmp_path, beta=4.0, gamma=0.3)


@pytest.mark.parametrize(("field", "value"), [("beta", 0.0), ("gamma", -0.1)])
def test_a_coefficient_out_of_range_is_refused(tmp_path: Path, field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        simpo(tmp_path, rows=1, **{field: value})
