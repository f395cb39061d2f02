"""A training that is killed goes on from its last complete checkpoint and ends where the undisturbed one ends."""

import functools
import json
import os
import signal
import time
from pathlib import Path

import pytest
from forked import Forked
from test_training_tiny import dpo, losses, make_model, make_pairs, make_responses, run, sft, summary

from cong.training import DPO, ORPO, WSPO, AuxConf, LoRA
from cong.training.checkpoints import discard_unusable, last_complete, mark_complete, step_of


def train_until(stage, root: Path, *, step: int) -> Path:
    """Run a stage in another process and kill it when it has made `step` optimizer steps."""
    out = root / stage.name / stage.slug
    root.mkdir(parents=True, exist_ok=True)
    train = functools.partial(run, stage, root, checkpoint_seconds=0.0)
    child = Forked(train, env=dict(os.environ), cwd=Path(__file__).parent)
    wait_for_step(out, step=step, alive=lambda: child.poll() is None)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (out / "training.json").exists(), "the training had ended before it was killed"
    return out


def wait_for_step(out: Path, *, step: int, alive=lambda: True) -> None:
    """Wait until the live curves hold `step` steps."""
    deadline = time.monotonic() + 240
    metrics = out / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < step:
        assert alive(), "the training ended before it could be killed"
        assert time.monotonic() < deadline, f"no step {step} within 240 s"
        time.sleep(0.005)


def weights(out: Path) -> dict:
    """Return the tensors of the trained model."""
    from safetensors.torch import load_file

    (path,) = (out / "model").glob("*.safetensors")
    return load_file(path)


def adapted(tmp_path: Path, **fields) -> DPO:
    """Return a DPO that trains an adapter."""
    return dpo(tmp_path, learning_rate=3e-2, lora=LoRA(rank=4), **fields)


@pytest.mark.parametrize("make", [sft, dpo, adapted])
def test_after_kill_9_the_rerun_gives_the_same_losses_and_the_same_model(tmp_path: Path, make) -> None:
    import torch

    stage = make(tmp_path, epochs=6)
    undisturbed = run(stage, tmp_path / "undisturbed")
    killed = train_until(stage, tmp_path / "killed", step=8)
    run(stage, tmp_path / "killed")
    assert 1 <= summary(killed)["resumed_at_step"] < 30
    assert summary(killed)["tokens"] == summary(undisturbed)["tokens"] > 0
    assert losses(killed) == losses(undisturbed)
    mine, other = weights(killed), weights(undisturbed)
    assert all(torch.equal(mine[name], other[name]) for name in other)
    assert not (killed / "checkpoints").exists()


@pytest.mark.parametrize(("make", "micro_tokens"), [(sft, 80), (dpo, 1), (dpo, 4096)])
def test_a_training_goes_on_with_other_micro_batches_on_the_same_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make, micro_tokens: int
) -> None:
    from cong.training import loop

    stage = make(tmp_path, epochs=2)
    undisturbed = run(stage, tmp_path / "undisturbed", micro_tokens=40)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_model", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(stage, tmp_path / "ended", micro_tokens=40, checkpoint_seconds=0.0)
    out = run(stage, tmp_path / "ended", micro_tokens=micro_tokens)
    assert summary(out)["resumed_at_step"] == 9
    for name in ("num_tokens", "learning_rate"):
        assert curve(out, name) == curve(undisturbed, name)
    assert losses(out) == pytest.approx(losses(undisturbed), abs=1e-5)
    assert curve(out, "entropy") == pytest.approx(curve(undisturbed, "entropy"), abs=1e-5)


@pytest.mark.parametrize("kind", ["auxconf", "wspo", "dpo", "orpo"])
def test_no_curve_depends_on_the_micro_batch(tmp_path: Path, kind: str) -> None:
    common = {"model": make_model(tmp_path / "model"), "learning_rate": 1e-3, "global_batch_size": 8}
    data, pairs = make_responses(tmp_path / "responses", rows=16), make_pairs(tmp_path / "pairs", rows=16)
    weak = {"post": make_model(tmp_path / "post", seed=1), "pre": common["model"]}
    stage = {
        "auxconf": lambda: AuxConf(data=data, **common),
        "wspo": lambda: WSPO(data=data, **weak, beta=1.0, **common),
        "dpo": lambda: DPO(data=pairs, beta=0.5, **common),
        "orpo": lambda: ORPO(data=pairs, weight=0.5, **common),
    }[kind]()
    one, other = (points(run(stage, tmp_path / str(size), micro_tokens=16 * size)) for size in (8, 2))
    # While the margins are still 0, rounding decides which side is ahead.
    for name in set(one[0]) - {"time", "rewards/accuracies"}:
        assert [point[name] for point in one] == pytest.approx([point[name] for point in other], abs=2e-5, rel=1e-5)


def points(out: Path) -> list[dict]:
    """Return the live curves."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def curve(out: Path, name: str) -> list[float]:
    """Return one of the live curves."""
    return [point[name] for point in points(out)]


def test_an_incomplete_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    stage = sft(tmp_path, epochs=6)
    undisturbed = run(stage, tmp_path / "undisturbed")
    out = train_until(stage, tmp_path / "killed", step=8)
    checkpoints = out / "checkpoints"
    last = last_complete(checkpoints, shape="plain")
    assert last is not None
    (last / "COMPLETE").unlink()
    (last / "optimizer.pt").write_bytes(b"half")
    before = last_complete(checkpoints, shape="plain")
    assert before is not None
    assert before != last
    run(stage, tmp_path / "killed")
    assert summary(out)["resumed_at_step"] == step_of(before)
    assert losses(out) == losses(undisturbed)


def test_two_complete_checkpoints_are_kept_and_leftovers_are_deleted(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        (tmp_path / f"checkpoint-{step}").mkdir()
        mark_complete(tmp_path / f"checkpoint-{step}", shape="plain")
    (tmp_path / "checkpoint-11").mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-11", "checkpoint-9"]
    assert step_of(last_complete(tmp_path, shape="plain")) == 10
    discard_unusable(tmp_path, shape="plain")
    assert not (tmp_path / "checkpoint-11").exists()


def test_a_checkpoint_of_another_kind_of_execution_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    mark_complete(tmp_path / "checkpoint-3", shape="zero3 x 4")
    assert last_complete(tmp_path, shape="zero3 x 2") is None
    assert last_complete(tmp_path, shape="zero3 x 4") == tmp_path / "checkpoint-3"
