"""What of the shell's environment reaches a stage: where things are, and keys; nothing that decides its execution."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_training_tiny import losses, make_model, texts
from toy import run

from cong.data.prompts import LocalFile
from cong.errors import UserError
from cong.evaluation import ResponseFile
from cong.graph.cluster import explain
from cong.graph.environment import GROUP, let_through, stage_environment
from cong.graph.resources import Resources, load_profile
from cong.graph.stage import Context, Stage
from cong.graph.store import Store
from cong.training import SFT
from cong.training.launch import _for_worker

LAUNCHERS = {
    "OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "1", "MV2_COMM_WORLD_SIZE": "2", "SLURM_PROCID": "1", "LSB_JOBID": "7",
    "TORCHELASTIC_RUN_ID": "x", "ACCELERATE_USE_FSDP": "true", "FSDP_OFFLOAD_PARAMS": "true", "XLA_USE_BF16": "1",
    "NVIDIA_TF32_OVERRIDE": "1", "PARALLELISM_CONFIG_TP_SIZE": "2", "VLLM_ATTENTION_BACKEND": "X", "PJRT_DEVICE": "TPU",
    "RAY_ADDRESS": "10.0.0.1:6379", "RAY_NAMESPACE": "other", "MASTER_PORT": "1", "LOCAL_WORLD_SIZE": "2",
}  # fmt: skip
KEPT = {
    "PATH": "/bin", "HF_TOKEN": "t", "CUDA_VISIBLE_DEVICES": "1", "https_proxy": "http://p", "CONG_MIRROR": "/m",
    "AWS_PROFILE": "a", "RAY_TMPDIR": "/t", "LC_ALL": "C", "CONDA_PREFIX": "/c", "OPENAI_API_KEY": "k",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Seeing(Stage):
    """Writes down the environment that it sees, and leaves a variable there."""

    number: int = 0

    def run(self, ctx: Context) -> None:
        (ctx.out / "seen.json").write_text(json.dumps(dict(os.environ)))
        os.environ["ACCELERATE_MIXED_PRECISION"] = "fp16"


def seen(store: Store, stage: Stage) -> dict[str, str]:
    return json.loads((store.directory(stage) / "seen.json").read_text())


def test_a_stage_sees_no_variable_of_another_launcher(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (LAUNCHERS | KEPT).items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    run(store, Seeing())
    assert not set(LAUNCHERS) & set(seen(store, Seeing()))
    assert KEPT.items() <= seen(store, Seeing()).items()
    assert dict(os.environ) == before


def test_what_a_stage_leaves_in_the_environment_decides_nothing_about_the_next(store: Store) -> None:
    run(store, Seeing(), Seeing(number=1))
    for stage in (Seeing(), Seeing(number=1)):
        assert "ACCELERATE_MIXED_PRECISION" not in seen(store, stage)
    assert "ACCELERATE_MIXED_PRECISION" not in os.environ


def test_the_environment_comes_back_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    with pytest.raises(KeyError), stage_environment():
        os.environ["SLURM_NTASKS"]
    assert os.environ["SLURM_NTASKS"] == "4"


def test_a_profile_names_what_else_its_stages_see(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[cluster]\nlet_through = ["MY_DATA", "SERVICE_*"]\n')
    further = load_profile(str(path)).cluster.let_through
    shell = {"MY_DATA": "1", "MY_OTHER": "2", "SERVICE_URL": "3", "SERVICE_KEY": "4"}
    assert sorted(let_through(shell, further=further)) == ["MY_DATA", "SERVICE_KEY", "SERVICE_URL"]
    path.write_text('[cluster]\nlet_thru = ["MY_DATA"]\n')
    with pytest.raises(UserError, match="let_thru"):
        load_profile(str(path))


def test_a_worker_of_a_group_keeps_what_makes_it_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*GROUP, "ACCELERATE_MIXED_PRECISION", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.setenv(name, "1")
    found: list[dict[str, str]] = []
    _for_worker(lambda job: found.append(dict(os.environ)), further=(*GROUP, "MINE"))(None)
    assert set(GROUP) <= set(found[0])
    assert not {"ACCELERATE_MIXED_PRECISION", "OMPI_COMM_WORLD_RANK"} & set(found[0])


@pytest.mark.parametrize(
    "shell",
    [
        {"ACCELERATE_MIXED_PRECISION": "bf16"},
        {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
    ],
)
def test_a_plain_training_is_the_same_from_every_shell(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: dict[str, str]
) -> None:
    stage = _training(tmp_path)
    resources = Resources(name="inline").changed(ray=False, actors=0, micro_tokens=80)
    plain = Store(tmp_path / "plain")
    plain.prepare()
    run(plain, stage, resources=resources)
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    run(store, stage, resources=resources)
    assert losses(store.directory(stage)) == losses(plain.directory(stage))


def _training(tmp_path: Path) -> SFT:
    lines = [{"prompt_id": r["prompt_id"], "prompt": r["prompt"], "response": r["chosen"]} for r in texts(rows=16)]
    path = tmp_path / "responses.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = ResponseFile(file=LocalFile(path=str(path)))
    return SFT(model=make_model(tmp_path / "model"), data=data, learning_rate=1e-3, global_batch_size=8)


def test_a_temporary_directory_that_is_too_long_for_ray_is_one_line_that_says_what_to_change() -> None:
    error = OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /a/very/long/path")
    assert explain(error, None).endswith("set RAY_TMPDIR to a short one")
