"""The small scale: all experiments of the paper can be planned with it, and fit on one GPU."""

from pathlib import Path

import commands
import handmade
import pytest

from cong.errors import UserError
from cong.experiment import load
from cong.graph.need import GB
from cong.graph.resources import load_profile
from cong.graph.stage import topological
from cong.graph.store import Store
from cong.models.memory import USABLE_GPU
from cong.run.workload import estimate
from cong.scales import scale

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
PLANNED = sorted(path.stem for path in EXPERIMENTS.glob("*.py") if "def cells(" in path.read_text())


def planned(experiment: str, **settings):
    return load(EXPERIMENTS / f"{experiment}.py").cells(scale("small"), settings)


@pytest.mark.parametrize("experiment", PLANNED)
def test_every_experiment_fits_on_one_gpu_at_small_scale(experiment):
    cells = planned(experiment)
    assert len({cell.name for cell in cells}) == len(cells)
    stages = topological([cell.stage for cell in cells])
    for profile in map(load_profile, ("gpu24x1", "gpu80x1")):
        assert profile.hardware.gpu_memory_gb is not None
        usable = USABLE_GPU * profile.hardware.gpu_memory_gb * GB
        for stage in stages:
            need, gpus = stage.memory(profile), stage.demand(profile).gpus
            assert gpus == (0 if need is None else 1), stage.title
            assert need is None or need.total <= usable, stage.title
        assert estimate(stages, profile).gpu_hours > 0


def test_defaults_are_sizes_and_families_of_the_scale():
    def values(experiment: str, axis: str) -> set:
        return {cell.axes[axis] for cell in planned(experiment) if axis in cell.axes}

    assert (values("quickstart", "weak"), values("quickstart", "strong")) == ({"0.5B"}, {"1.5B"})
    assert values("methods", "family") == {"smollm", "qwen", "smollm-qwen", "qwen-smollm"}
    assert values("training_cost", "family") == {"smollm", "qwen"}
    assert values("tune_alpha", "pair") == {"smollm 135M, lr 2e-06", "qwen 0.5B, lr 2e-06"}
    # What varies sizes takes the family that has the most.
    assert values("larger_strong", "family") == values("model_gap", "family") == {"smollm"}
    assert values("model_gap", "strong") == {"135M", "360M", "1.7B"}
    largest = {cell.stage for cell in planned("larger_strong") if "1.7B" in str(cell.stage)}
    assert largest


def test_the_plan_of_the_quickstart_names_memory_and_hours(tmp_path):
    settings = ["--scale", "small", "--profile", "gpu24x1", "--store", str(tmp_path)]
    code, output = commands.cong("plan", str(EXPERIMENTS / "quickstart.py"), *settings, env={"HF_HUB_OFFLINE": "1"})
    assert code == 0, output
    assert " of 24 GB" in output
    assert "GPU-hours, estimated" in output


def test_the_small_scale_is_refused_without_a_gpu(tmp_path):
    settings = ["--scale", "small", "--store", str(tmp_path)]
    code, output = commands.cong("run", str(EXPERIMENTS / "quickstart.py"), *settings, env={"HF_HUB_OFFLINE": "1"})
    assert code == 2
    assert "needs a GPU at scale small" in output
    assert "gpu24x1" in output


def test_a_model_that_the_small_scale_lacks_is_one_line_with_those_that_it_has():
    with pytest.raises(UserError, match=r"the small scale has no model qwen-7B: it has smollm-135M, .*qwen-1\.5B"):
        scale("small").model("qwen", "7B", 0)


def test_the_reproduction_is_told_where_the_paper_has_no_such_family(tmp_path):
    store, settings = Store(tmp_path), {"only": ("methods", "model_gap", "alpha_sweep", "alpha_sweep-smollm")}
    experiment = load(EXPERIMENTS / "reproduce.py")
    cells = experiment.cells(scale("small"), settings | {"seeds": (0,)})
    results = handmade.publish(cells, store, reward=lambda axes: 1.0 if axes.get("method") == "ConG" else 0.0)
    observations = {one.number: one for one in experiment.module.observations(results)}
    # Means over the families that were measured.
    assert all(claim.estimate is not None for claim in observations[2].claims)
    assert {"smollm", "qwen"} <= {str(cell.axes["family"]) for cell in cells}
    blocks = list(experiment.report(results))
    assert blocks
