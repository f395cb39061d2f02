"""A training fits into the profile's memory by a smaller micro-batch, or by activations computed again: same losses."""

import pytest
from test_training_tiny import dpo, losses, resources, run, sft

from cong.graph.resources import load_profile
from cong.models.architecture import Architecture
from cong.training import fitting
from cong.training.job import Job

SMOLLM2 = Architecture(
    layers=30, width=576, heads=9, kv_heads=3, head_width=64, inner=1536, vocabulary=49152, tied=True, positions=8192
)


def chosen(stage, *, memory_gb: float | None, longest: int = 90, model: Architecture = SMOLLM2) -> tuple[int, bool]:
    """Return micro-batch and checkpointing of a stage whose model would be this one."""
    job = Job(
        schedule=stage, trainer_factory=print, model=None, out=None, metrics=None, progress=None,  # pyright: ignore
        resources=resources(micro_batch=16, memory_gb=memory_gb),
    )  # fmt: skip
    found = fitting.fitted(
        job,
        need=lambda execution, checkpointing: (
            stage._need(model, execution, longest=longest, checkpointing=checkpointing).total
        ),
    )
    return found.resources.training.micro_batch, found.checkpointing


def test_the_micro_batch_follows_the_memory_the_model_and_the_rows(tmp_path):
    stage = dpo(tmp_path, rows=1, global_batch_size=16)
    sizes = [chosen(stage, memory_gb=budget) for budget in (None, 16, 6, 4, 3)]
    assert sizes[0] == sizes[1] == (16, False)
    assert [size for size, _ in sizes] == sorted((size for size, _ in sizes), reverse=True)
    assert chosen(stage, memory_gb=4, longest=20)[0] > chosen(stage, memory_gb=4)[0] >= 1
    assert chosen(stage, memory_gb=4, longest=2048) == (1, True)
    small = Architecture(**{**vars(SMOLLM2), "layers": 2, "width": 64, "inner": 128, "vocabulary": 512})
    assert chosen(stage, memory_gb=4, model=small) == (16, False)


def test_only_what_divides_a_step_is_taken(tmp_path):
    stage = dpo(tmp_path, rows=1, global_batch_size=18)
    assert 18 % chosen(stage, memory_gb=4.5)[0] == 0
    assert chosen(stage, memory_gb=None)[0] == 16


@pytest.mark.parametrize("make", [sft, dpo])
def test_a_training_that_had_to_be_made_to_fit_has_the_same_losses(tmp_path, monkeypatch, make):
    stage = make(tmp_path, rows=16, epochs=2)
    wide = losses(run(stage, tmp_path / "wide", micro_batch=8))
    monkeypatch.setattr(fitting, "PROCESS_BYTES", 0)
    seen = []
    made = fitting.micro_batches
    monkeypatch.setattr(
        fitting, "micro_batches", lambda job: seen.append(job.resources.hardware.memory_gb) or made(job)
    )
    for memory_gb in (1e-3, 1e-9):
        assert losses(run(stage, tmp_path / str(memory_gb), micro_batch=8, memory_gb=memory_gb)) == pytest.approx(
            wide, abs=1e-5
        )
    assert seen[-1] == 1e-9


def test_the_laptop_profile_states_a_memory():
    assert load_profile("laptop").hardware.memory_gb == 4
