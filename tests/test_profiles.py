"""Profiles: what they hold, what they refuse, and where the numbers of a model come from."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_memory import QWEN_3B, hugging_face

from cong import methods
from cong.errors import UserError
from cong.experiment import load
from cong.graph.need import GB
from cong.graph.plan import make_plan
from cong.graph.resources import PROFILES, Resources, SizeSettings, load_profile
from cong.graph.runner import Runner
from cong.graph.stage import Stage, topological
from cong.graph.store import Store
from cong.models import HubModel, LocalModel, architecture_of
from cong.models.architecture import PUBLISHED, from_config, read_architecture
from cong.models.memory import check_fits
from cong.scales import ARMORM, CHECKPOINTS, scale
from cong.scales.small import DEBERTA, SMALL_CHECKPOINTS
from cong.synthetic.models import architecture as tiny_architecture

ROOT = Path(__file__).resolve().parents[1]
SMALL_PROFILES = ("gpu24x1", "gpu80x1")
"""Of one GPU: they hold the small scale's models, and not all of the paper's."""
GPU_PROFILES = [
    path.stem
    for path in sorted(PROFILES.glob("*.toml"))
    if load_profile(path.stem).hardware.device == "cuda" and path.stem not in SMALL_PROFILES
]


def test_the_numbers_of_a_checkpoint_come_from_its_own_configuration(tmp_path):
    model = tiny_architecture("llama", "14B")
    hugging_face(model).save_pretrained(tmp_path)
    assert architecture_of(LocalModel(path=str(tmp_path))) == model


def test_a_mirrored_model_counts_as_what_the_mirror_holds(tmp_path, monkeypatch):
    repo, revision = CHECKPOINTS["qwen", "7B"]
    model = HubModel(repo=repo, revision=revision)
    assert architecture_of(model) == PUBLISHED[repo]
    hugging_face(QWEN_3B).save_pretrained(tmp_path / repo)
    monkeypatch.setenv("CONG_MIRROR", str(tmp_path))
    assert architecture_of(model) == QWEN_3B


def test_the_numbers_of_an_unknown_model_are_not_guessed(tmp_path):
    assert architecture_of(HubModel(repo="someone/else", revision="0" * 40)) is None
    assert from_config({"hidden_size": 8, "num_hidden_layers": "two"}) is None
    (tmp_path / "config.json").write_text("{")
    assert read_architecture(tmp_path / "config.json") is None


def test_every_model_of_the_paper_and_of_the_small_scale_has_its_numbers():
    checkpoints = {repo for repo, _ in (*CHECKPOINTS.values(), *SMALL_CHECKPOINTS.values())}
    assert checkpoints | {ARMORM.repo, DEBERTA.repo} == set(PUBLISHED)


def paper_stages() -> list[Stage]:
    names = ("quickstart", "methods", "model_gap")
    found = [load(ROOT / "experiments" / f"{name}.py").cells(scale("paper"), {}) for name in names]
    return topological([cell.stage for cells in found for cell in cells])


def test_every_gpu_profile_holds_every_stage_of_the_paper():
    stages = paper_stages()
    for name in GPU_PROFILES:
        resources = load_profile(name)
        assert resources.hardware.gpu_memory_gb is not None
        check_fits(stages, resources)
        for stage in stages:
            demand, need = stage.demand(resources), stage.memory(resources)
            assert (demand.gpus > 0) == (need is not None), stage.title
            assert demand.gpus in (0, resources.decoding.actors, resources.training.workers)
    assert {"l40x4", "h100x8", "h100x32", "h200x8"} == set(GPU_PROFILES)


def test_the_readme_states_the_fullest_gpu_of_every_profile():
    stages, readme = paper_stages(), (ROOT / "README.md").read_text()
    for name in GPU_PROFILES:
        resources = load_profile(name)
        needs = [need.total for stage in stages if (need := stage.memory(resources)) is not None]
        (row,) = re.findall(rf"^\| `{name}` \|.*$", readme, re.MULTILINE)
        assert row.endswith(f"| {max(needs) / GB:.1f} of {resources.hardware.gpu_memory_gb:g} GB |")


def test_a_stage_that_cannot_fit_is_named_with_what_it_needs_and_what_to_do():
    resources = dataclasses.replace(load_profile("l40x4").changed(deepspeed="zero3"), sizes=())
    with pytest.raises(UserError) as refused:
        check_fits([stage for stage in paper_stages() if stage.name == "SFT"], resources)
    # 14.77 billion parameters at 16 bytes, shared out among four workers, are 59.1 GB.
    assert re.fullmatch(
        r"profile l40x4: SFT\(lr=1e-05\) needs 6\d\.\d GB in each process "
        r"\(weights 7\.4, states 51\.7, working \d\.\d\); of a GPU of 48 GB 43\.2 can be used: "
        r"choose more workers, .*smaller micro_tokens",
        str(refused.value),
    )


def test_slots_auto_takes_what_fits_and_is_refused_when_no_slot_does():
    t = methods.transition("qwen", weak="7B", strong="14B", scale=scale("paper"))
    stage = t.contrast(t.prompts, alpha=0.5)
    auto = Resources(name="auto").changed(device="cuda", dtype="bfloat16", slots="auto", gpu_memory_gb=48)
    need = stage.memory(auto)
    assert need is not None
    one = stage.memory(auto.changed(slots=1))
    assert one is not None
    assert 43.2 - 2 * one.cache / GB < need.total / GB <= 43.2
    with pytest.raises(UserError, match=r"needs 3[0-9.]+ GB in each process .*choose fewer slots"):
        check_fits([stage], auto.changed(gpu_memory_gb=24))


def test_a_profile_says_what_smaller_models_are_run_with(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        "[decoding]\nslots = 8\n[training]\nmicro_tokens = 512\n[[sizes]]\nup_to_parameters = 2e9\nslots = 64\n"
        "[[sizes]]\nup_to_parameters = 4e9\nslots = 32\nmicro_tokens = 1024\n"
    )
    resources = load_profile(str(path))
    assert [resources.for_size(count).decoding.slots for count in (1e9, 2e9, 3e9, 5e9, None)] == [64, 64, 32, 8, 8]
    assert [resources.for_size(count).training.micro_tokens for count in (1e9, 3e9)] == [512, 1024]
    chosen = load_profile(str(path), slots=3)
    assert [chosen.for_size(count).decoding.slots for count in (1e9, 5e9)] == [3, 3]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ("[[sizes]]\nup_to_parameters = 4e9\n[[sizes]]\nup_to_parameters = 2e9\n", "must rise"),
        ("[[sizes]]\nup_to_parameters = 4e9\nslots = 0\n", "slots = 0 is below 1"),
        ("[[sizes]]\nslots = 4\n", "up_to_parameters"),
        ("[[sizes]]\nup_to_parameters = 4e9\ndtype = 'float32'\n", "dtype"),
        ("sizes = 3\n", "not iterable"),
    ],
)
def test_a_mistake_in_the_sizes_of_a_profile_is_one_line(tmp_path, tables, message):
    (tmp_path / "mine.toml").write_text(tables)
    with pytest.raises(UserError, match=message):
        load_profile(str(tmp_path / "mine.toml"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sized(Stage):
    """Writes down what it is run with."""

    count: int

    def parameters(self) -> int:
        return self.count

    def run(self, ctx):
        ctx.summary(slots=ctx.resources.decoding.slots)


def test_a_running_stage_is_given_the_settings_for_its_size_and_its_record_says_so(tmp_path):
    store, small = Store(tmp_path), SizeSettings(up_to_parameters=1e9, slots=7)
    resources = Resources(name="sized", sizes=(small,)).changed(ray=False, actors=0, slots=3)
    stages = {str(count): Sized(count=count) for count in (10**6, 10**10)}
    Runner(store=store, resources=resources).run(make_plan(stages, store))
    records = [store.record(stage) for stage in stages.values()]
    assert [record["results"]["slots"] for record in records] == [7, 3]
    assert [record["resources"]["decoding"]["slots"] for record in records] == [7, 3]


def test_the_settings_for_a_size_change_no_fingerprint():
    t = methods.transition("qwen", weak="1.5B", strong="1.5B", scale=scale("tiny"))
    stage = methods.cong_s(t, alpha=0.4)
    small = SizeSettings(up_to_parameters=1e9, micro_tokens=640)
    before = stage.fingerprint
    assert stage.execution(Resources(name="a", sizes=(small,))).training.micro_tokens == 640
    assert dataclasses.replace(stage).fingerprint == before


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_profile_that_cannot_hold_a_stage_ends_with_one_line_and_exit_code_2(tmp_path, command):
    small = (PROFILES / "l40x4.toml").read_text().replace("gpu_memory_gb = 48", "gpu_memory_gb = 24")
    (tmp_path / "small.toml").write_text(small)
    call = [sys.executable, "-m", "cong.cli", command, str(ROOT / "experiments" / "quickstart.py"), "--scale", "paper"]
    settings = ["--profile", str(tmp_path / "small.toml"), "--store", str(tmp_path / "store")]
    done = subprocess.run([*call, *settings], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: profile small: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_the_plan_says_what_each_kind_of_stage_needs_and_what_there_is(tmp_path, capsys):
    from cong.cli.app import app

    settings = ["--scale", "paper", "--profile", "l40x4", "--store", str(tmp_path)]
    app(["plan", str(ROOT / "experiments" / "quickstart.py"), *settings], standalone_mode=False)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if " of 48 GB" in line}
    assert list(lines) == ["Generate", "Score", "ReferenceLogprobs", "DPO", "SFT", "ContrastiveGenerate"]
    assert "16 CPU 4 GPU" in lines["SFT"]
    found = re.search(r"(\S+) of 48 GB  \(weights (\S+), states (\S+), working (\S+)\)", lines["SFT"])
    assert found is not None
    total, weights, states, working = map(float, found.groups())
    # Qwen2.5-7B: 7.62 billion parameters at 16 bytes for four workers.
    assert weights + states == pytest.approx(7.6156 * 16 / 4, abs=0.1)
    assert total == pytest.approx(weights + states + working, abs=0.15)


def test_a_setting_may_stand_in_its_table_or_by_itself(tmp_path):
    alone, tables = tmp_path / "own.toml", tmp_path / "tables" / "own.toml"
    tables.parent.mkdir()
    alone.write_text("ray = false\nworkers = 2\nslots = 8\n[[sizes]]\nup_to_parameters = 1e9\nslots = 9\n")
    tables.write_text(
        "[cluster]\nray = false\n[training]\nworkers = 2\n[decoding]\nslots = 8\n"
        "[[sizes]]\nup_to_parameters = 1e9\nslots = 9\n"
    )
    assert load_profile(str(alone)) == load_profile(str(tables))
    assert load_profile(str(alone)).for_size(1e8).decoding.slots == 9


def test_resources_are_made_of_parts_or_of_settings():
    assert Resources(name="a").changed(ray=False, workers=2) == Resources(name="a").changed(ray=False, workers=2)
    with pytest.raises(TypeError, match="'gpus': a profile has no such setting"):
        Resources(name="a").changed(gpus=3)
    with pytest.raises(ValueError, match="workers = 0 is below 1"):
        Resources(name="a").changed(workers=0)
