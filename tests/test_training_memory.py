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
    """Return tokens at a time and checkpointing of a stage whose model would be this one."""
    job = Job(
        schedule=stage, trainer_factory=print, model=None, out=None, metrics=None, progress=None,  # pyright: ignore
        resources=resources(micro_tokens=2048, memory_gb=memory_gb),
    )  # fmt: skip
    found = fitting.fitted(
        job,
        longest=longest,
        need=lambda execution, checkpointing: (
            stage._need(model, execution, longest=longest, checkpointing=checkpointing).total
        ),
    )
    return found.resources.training.micro_tokens, found.checkpointing


def test_the_tokens_at_a_time_follow_the_memory_the_model_and_the_rows(tmp_path):
    stage = dpo(tmp_path, rows=1, global_batch_size=16)
    counts = [chosen(stage, memory_gb=budget) for budget in (None, 16, 6, 4, 3)]
    assert counts[0] == counts[1] == (2048, False)
    assert [count for count, _ in counts] == sorted((count for count, _ in counts), reverse=True)
    assert chosen(stage, memory_gb=4)[0] < 2048
    assert chosen(stage, memory_gb=3.2, longest=900) == (1024, True)
    small = Architecture(**{**vars(SMOLLM2), "layers": 2, "width": 64, "inner": 128, "vocabulary": 512})
    assert chosen(stage, memory_gb=4, model=small) == (2048, False)


def test_a_row_longer_than_a_micro_batch_is_one_by_itself(tmp_path):
    stage = dpo(tmp_path, rows=1)
    assert chosen(stage, memory_gb=None, longest=5000) == (2048, False)
    assert chosen(stage, memory_gb=100, longest=5000) == (5000, False)


@pytest.mark.parametrize("make", [sft, dpo])
def test_a_training_that_had_to_be_made_to_fit_has_the_same_losses(tmp_path, monkeypatch, make):
    stage = make(tmp_path, rows=16, epochs=2)
    wide = losses(run(stage, tmp_path / "wide", micro_tokens=4096))
    monkeypatch.setattr(fitting, "PROCESS_BYTES", 0)
    seen = []
    made = fitting.micro_tokens

    def watched(job: Job, *, longest: int) -> list[int]:
        seen.append(job.resources.hardware.memory_gb)
        return made(job, longest=longest)

    monkeypatch.setattr(fitting, "micro_tokens", watched)
    for memory_gb in (1e-3, 1e-9):
        narrow = losses(run(stage, tmp_path / str(memory_gb), micro_tokens=4096, memory_gb=memory_gb))
        assert narrow == pytest.approx(wide, abs=1e-5)
    assert seen[-1] == 1e-9


def test_the_laptop_profile_states_a_memory():
    assert load_profile("laptop").hardware.memory_gb == 4
