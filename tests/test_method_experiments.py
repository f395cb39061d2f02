"""The experiments of methods and transitions, and the README's example, end to end in the small world."""

import math
import re
import shutil
from pathlib import Path

import pytest
import small
from toy import INLINE

from cong.experiment import Results, collect, load
from cong.graph.plan import make_plan
from cong.graph.runner import Runner, StageFailed
from cong.graph.stage import topological
from cong.graph.store import Store
from cong.report import Table, Text, write_report
from cong.run.job import Job
from cong.scales import Scale, scale
from cong.training import DPO

ROOT = Path(__file__).resolve().parents[1]


def run_experiment(path: Path, store: Store, settings: dict, tmp_path: Path, *, given: Scale | None = None) -> tuple:
    """Run an experiment of the small world in this process; return its results and the blocks of its report."""
    experiment = load(path)
    cells = experiment.cells(given or small.small_scale(), settings)
    plan = make_plan({cell.name: cell.stage for cell in cells}, store)
    try:
        Runner(store=store, resources=INLINE).run(plan)
    except StageFailed:
        assert all(cell.may_lack or store.is_complete(cell.stage) for cell in cells)
    results = collect(cells, store)
    blocks = experiment.report(results)
    write_report(tmp_path / "report", name="page", title="t", description="", blocks=blocks)
    return results, blocks


def table(blocks: list, title: str) -> dict[str, tuple[str, ...]]:
    """Return a table's rows by their first cell."""
    found = next(block for block in blocks if isinstance(block, Table) and block.title == title)
    return {row[0]: tuple(row[1:]) for row in found.rows}


def test_every_method_of_the_paper_runs_end_to_end_in_a_family_and_across(small_run, tmp_path):
    settings = {"families": ("qwen", "llama-qwen"), "weak": "1.5B", "strong": "1.5B", "orpo_weight": (0.5, 2.0)}
    results, blocks = run_experiment(ROOT / "experiments" / "methods.py", small_run.store, settings, tmp_path)
    one_model = ["Base, one model", "DPO", "ORPO", "SimPO", "ConG-S (self)", "ConG (self)"]
    overview = table(blocks, "Reward on held-out prompts, greedy")
    assert list(overview) == [
        "Base", "Weak SFT (pre)", "Weak SFT (post)", "WeakTeacher", "AuxConf", "WSPO", "ConG-S", "ConG", *one_model
    ]  # fmt: skip
    assert all(re.fullmatch(r"-?\d\.\d\d \[.*\]", row[0]) for row in overview.values())
    assert all((row[1] == "") == (name in one_model) for name, row in overview.items())
    across = table(blocks, "llama to qwen, weak to strong")
    assert across["ConG"][3] == "51.7"
    assert across["WeakTeacher"][3:5] == ("", "")
    # Among the six methods that the paper has across families, ConG is its first and Weak SFT its last.
    assert [across[name][4].split(" / ")[1] for name in ("ConG", "ConG-S", "Weak SFT (pre)")] == ["1", "2", "6"]
    orpo = {
        row.axes["orpo_weight"]: row.values["reward"]
        for row in results
        if row.axes["method"] == "ORPO" and "benchmark" not in row.axes
    }
    assert set(orpo) == {0.5, 2.0}
    assert overview["ORPO"][0].startswith(f"{max(orpo.values()):.2f} ")
    assert len(table(blocks, "Search ranges")) == 1
    assert sum(isinstance(block, Text) and "Spearman" in block.text for block in blocks) == 3


def test_alpha_is_tuned_on_training_prompts_and_judged_on_held_out_ones(small_run, tmp_path):
    settings = {"families": ("qwen",), "sizes": ("1.5B",), "alphas": (0.2, 0.6), "prompts": 16}
    results, blocks = run_experiment(ROOT / "experiments" / "tune_alpha.py", small_run.store, settings, tmp_path)
    assert [result.values["prompts"] for result in _on(results, "training")] == [16, 16, 16]
    assert [result.values["prompts"] for result in _on(results, "held-out")] == [8, 8, 8]
    best = max(_on(results, "training"), key=lambda result: result.values["reward"]).axes["alpha"]
    ((alpha, reward, gain, distance, _),) = table(
        blocks, "Tuned alpha, and how far alignment moved the weak model"
    ).values()
    assert alpha == f"{best:g}"
    held_out = {result.axes["alpha"]: result.values["reward"] for result in _on(results, "held-out")}
    assert reward.startswith(f"{held_out[best]:.2f} ")
    assert float(gain.split()[0]) == pytest.approx(held_out[best] - held_out[1.0], abs=0.006)
    assert math.isfinite(float(distance.split()[0]))
    assert (tmp_path / "report" / "tune_alpha.png").stat().st_size > 1000


def test_the_model_gap_runs_both_paths_from_one_command(small_run, tmp_path):
    settings = {
        "weaks": ("1.5B",), "to_strong": "3B", "strongs": ("3B", "7B"), "path": ("1.5B", "3B", "7B"),
    }  # fmt: skip
    _, blocks = run_experiment(ROOT / "experiments" / "model_gap.py", small_run.store, settings, tmp_path)
    assert list(table(blocks, "The sizes before alignment")) == ["1.5B", "3B", "7B"]
    assert list(table(blocks, "Strong size varies")) == ["1.5B to 3B", "1.5B to 7B"]
    staged = table(blocks, "Staged path: every step's weak pair is the step before")
    assert staged["1.5B to 3B"] == table(blocks, "Weak size varies")["1.5B to 3B"]
    assert staged["3B to 7B"] != table(blocks, "Direct transition over the whole path")["1.5B to 7B"]
    assert blocks[-1].text.startswith("1.5B -> 3B -> 7B minus 1.5B -> 7B, ConG, paired by prompt: ")


def test_a_margin_without_pairs_is_named_in_the_table_of_the_safe_stage_two(small_run, tmp_path):
    store = _copy(small_run, tmp_path)
    settings = {
        "stage_one": ("1e-3x1",),
        "margins": (0.0, 1e9),
        "judges": ("student",),
        "weak": "1.5B",
        "strong": "1.5B",
    }
    results, blocks = run_experiment(ROOT / "experiments" / "safe_stage_two.py", store, settings, tmp_path)
    for decoding in ("greedy", "sampled"):
        gains = table(blocks, f"Reward of ConG-S, and what Stage II adds to it, {decoding}")
        assert gains["safe, student, margin 1e+09 - ConG-S"] == ("no pairs",)
        assert re.fullmatch(r"-?\d\.\d\d \[.*\]", gains["safe, student, margin 0 - ConG-S"][0])
    pairs = table(blocks, "Pairs, and the share in which chosen beats rejected")
    assert pairs["safe, student, margin 1e+09"] == ("no pairs",)
    counts = {name: int(row[0].split(":")[0]) for name, row in pairs.items() if row != ("no pairs",)}
    assert counts["safe, student, margin 0"] <= counts["safe, student, margin 0, swap"] <= counts["ConG"]
    assert not [result for result in results if "1e+09" in str(result.axes["method"]) and "decoding" in result.axes]


@pytest.mark.parametrize(
    ("experiment", "settings", "message"),
    [
        ("safe_stage_two", {"stage_one": ("fast",)}, "stage_one=fast: write learning rate x epochs"),
        ("methods", {"families": ("gpt",)}, "families=gpt: unknown gpt; there are qwen, llama, qwen-llama, llama-qwen"),
    ],
)
def test_a_mistaken_axis_is_one_clear_line(experiment, settings, message):
    from cong.errors import UserError

    with pytest.raises(UserError, match=message):
        load(ROOT / "experiments" / f"{experiment}.py").cells(scale("tiny"), settings)


@pytest.mark.parametrize("experiment", ["methods", "model_gap", "tune_alpha", "safe_stage_two"])
def test_every_experiment_has_the_models_of_the_paper(experiment):
    cells = load(ROOT / "experiments" / f"{experiment}.py").cells(scale("paper"), {})
    assert len(topological([cell.stage for cell in cells])) > 50


def test_the_readmes_method_runs_as_it_stands_there(small_run, tmp_path):
    section = (ROOT / "README.md").read_text().split("### Adding a method")[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    (tmp_path / "best_of_n.py").write_text(block[1])
    settings = {"n": (2, 3), "weak": "1.5B", "strong": "1.5B"}
    results, blocks = run_experiment(tmp_path / "best_of_n.py", small_run.store, settings, tmp_path)
    assert list(table(blocks, "Best of n")) == ["Base", "best of 2", "best of 3"]
    models = [result.cell.stage.scored.responses.model for result in results[1:]]  # pyright: ignore[reportAttributeAccessIssue]
    assert all(isinstance(model, DPO) for model in models)
    assert {stage.name for stage in topological(models)} <= {stage.name for stage in small_run.plan.stages}


def _on(results: Results, where: str) -> Results:
    return [result for result in results if result.axes.get("on") == where]


def _copy(small_run: Job, tmp_path: Path) -> Store:
    shutil.copytree(small_run.store.root, tmp_path / "store", ignore=shutil.ignore_patterns("mlflow*", "mlartifacts"))
    return Store(tmp_path / "store")
