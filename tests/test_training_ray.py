"""Training by Ray Train workers: the same losses as one plain worker, and recovery of a lost worker."""

import os
import shutil
import signal
import threading
from pathlib import Path

import psutil
import pytest
from test_training_resume import wait_for_step
from test_training_tiny import dpo, losses, run, sft, summary

from cong.training import LoRA, ReferenceLogprobs

ZERO3 = {"workers": 2, "deepspeed": "zero3", "micro_tokens": 40}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two_cpus")
def test_dpo_losses_of_two_zero3_workers_equal_those_of_one_plain_worker(tmp_path: Path) -> None:
    stage = dpo(tmp_path, rows=30, epochs=2)
    plain, sharded = run(stage, tmp_path / "plain"), run(stage, tmp_path / "zero3", **ZERO3)
    assert losses(sharded) == pytest.approx(losses(plain), abs=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two_cpus")
@pytest.mark.parametrize(
    ("make", "settings"),
    [(sft, {}), (dpo, {"lora": LoRA(rank=4), "learning_rate": 1e-2})],
    ids=["SFT of all weights", "DPO of an adapter"],
)
def test_two_zero3_workers_of_which_one_is_killed_give_the_losses_of_one_plain_worker(
    tmp_path: Path, make, settings
) -> None:
    # Not a multiple of the batch: the last step of an epoch has fewer rows.
    stage = make(tmp_path, rows=38, epochs=4, **settings)
    undisturbed = run(stage, tmp_path / "plain")
    _copy_reference(stage, tmp_path / "plain", tmp_path / "killed")
    out = tmp_path / "killed" / stage.name / stage.slug
    failed: list[BaseException] = []
    training = threading.Thread(target=_train, args=(stage, tmp_path / "killed", failed))
    training.start()
    wait_for_step(out, step=5, alive=training.is_alive)
    os.kill(_workers()[-1].pid, signal.SIGKILL)
    training.join()
    assert not failed, failed
    assert 1 <= summary(out)["resumed_at_step"] < 20
    assert losses(out) == pytest.approx(losses(undisturbed), abs=1e-4)
    assert losses(out)[-1] < losses(out)[0] - 0.05
    assert summary(out)["steps"] == summary(undisturbed)["steps"] == 20
    assert _shapes(out) == _shapes(undisturbed)
    assert {path.name for path in (out / "model").iterdir()} == {
        path.name for path in (undisturbed / "model").iterdir()
    }


def _copy_reference(stage, plain: Path, killed: Path) -> None:
    """Two workers compute reference log-probabilities in the test above; here the training alone is to run on them."""
    for reference in (item for item in stage.inputs if isinstance(item, ReferenceLogprobs)):
        place = Path(reference.name) / reference.slug
        shutil.copytree(plain / place, killed / place)


def _train(stage, root: Path, failed: list[BaseException]) -> None:
    try:
        run(stage, root, checkpoint_seconds=0.0, **ZERO3)
    except BaseException as error:
        failed.append(error)


def _workers() -> list[psutil.Process]:
    """Return the training workers among this process's descendants."""
    mine = psutil.Process().children(recursive=True)
    found = [process for process in mine if "RayTrainWorker" in "".join(process.cmdline())]
    assert len(found) >= 2
    return found


def _shapes(out: Path) -> dict[str, tuple[int, ...]]:
    from safetensors.torch import load_file

    (weights,) = (out / "model").glob("*.safetensors")
    return {name: tuple(tensor.shape) for name, tensor in load_file(weights).items()}
