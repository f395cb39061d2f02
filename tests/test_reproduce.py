"""The experiments of the paper's tables and figures, and what is concluded from their results."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import handmade
import pytest
from toy import INLINE

from cong import methods
from cong.data.prompts import HubPrompts
from cong.evaluation import Compare, Evaluate, ExactComparison, NoisyComparison
from cong.evaluation.judging import Pair
from cong.experiment import Cell, Results, load
from cong.experiment.parts import Part
from cong.generation import Generate
from cong.graph.fingerprint import canonical, fields_of
from cong.graph.plan import make_plan
from cong.graph.resources import load_profile
from cong.graph.stage import topological
from cong.graph.store import Store
from cong.models.work import L40
from cong.paper.observations import HELD, NOT_HELD, UNDECIDED, Claim, Observation, observation_blocks
from cong.paper.published import load_published
from cong.report.statistics import Estimate
from cong.run.job import Job
from cong.run.pages import report
from cong.run.workload import estimate, work_of
from cong.scales import scale
from cong.synthetic.world import World, make_prompts

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
REPRODUCE = EXPERIMENTS / "reproduce.py"
FILES = (
    "methods", "downstream", "domains", "training_cost", "larger_strong", "second_judge", "raters",
    "reward_correlation", "radar", "alpha_rewards", "alpha_sweep", "model_gap",
)  # fmt: skip


def interval(low: float, high: float) -> Estimate:
    return Estimate(mean=(low + high) / 2, low=low, high=high, seeds=3)


def reproduced(store: Store, *only: str, reward) -> tuple[Results, dict[int, Observation]]:
    """Return hand-made results of some parts, and the observations that they lead to."""
    experiment = load(REPRODUCE)
    results = handmade.publish(experiment.cells(scale("tiny"), {"only": only, "seeds": (0, 1)}), store, reward=reward)
    return results, {one.number: one for one in experiment.module.observations(results)}


@pytest.mark.parametrize("name", ["tiny", "small", "paper"])
@pytest.mark.parametrize("file", FILES)
def test_every_table_and_figure_can_be_planned_at_every_scale(file: str, name: str) -> None:
    cells = Part(path=EXPERIMENTS / f"{file}.py", settings={"seeds": (0, 1)}).cells(scale(name))
    stages = topological([cell.stage for cell in cells])
    assert len({cell.name for cell in cells}) == len(cells)
    assert {cell.axes["seed"] for cell in cells} == {0, 1}
    assert len(stages) > 20


@pytest.mark.parametrize("name", ["tiny", "small", "paper"])
def test_no_stage_of_the_reproduction_is_there_twice(name: str) -> None:
    cells = load(REPRODUCE).cells(scale(name), {})
    stages = topological([cell.stage for cell in cells])
    assert max(Counter(stage.fingerprint for stage in stages).values()) == 1
    # Greedy decoding draws nothing: the same but for the seed would be the same work.
    greedy = [stage for stage in stages if isinstance(stage, Generate) and stage.sampling.temperature == 0]
    without_seed = Counter(
        json.dumps(canonical({key: value for key, value in fields_of(stage).items() if key != "seed"}))
        for stage in greedy
    )
    assert max(without_seed.values()) == 1
    parts = sum(len(topological([cell.stage for cell in cells if cell.axes["part"] == part])) for part in FILES)
    assert len(stages) < parts / 1.3


def test_a_plan_at_paper_scale_estimates_hours_and_disk_without_loading_anything_heavy() -> None:
    code = (
        "import sys\nfrom cong.cli.app import main\n"
        f"sys.argv = ['cong', 'plan', {str(REPRODUCE)!r}, '--scale', 'paper', '--profile', 'l40x4']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'ray', 'mlflow', 'transformers', 'sklearn', 'pandas', 'lm_eval'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    told = done.stdout[done.stdout.index("GPU-hours, estimated") :]
    assert "disk, estimated: " in told
    assert "181 TFLOP/s and 864 GB/s per GPU (profile l40x4)" in " ".join(told.split())
    assert "in the paper, table 5, Qwen2.5-7B): Weak SFT (pre) " in told


def test_a_training_is_estimated_in_operations_and_of_the_order_of_the_papers_hours() -> None:
    t = methods.transition("qwen", weak="3B", strong="7B", scale=scale("paper"))
    model, resources = methods.weak_sft_pre(t), load_profile("l40x4")
    operations = 8 * 7_615_616_512 * 61_135 * 600
    assert work_of(model, resources).gpu_hours == pytest.approx(operations / (0.4 * 181e12) / 3600)
    assert work_of(model, resources).disk_bytes == 2 * 7_615_616_512
    published = load_published(EXPERIMENTS / "paper.toml")["cost", "qwen"]
    assert 0.5 < work_of(model, resources).gpu_hours / published.value("Weak SFT (pre)", "GPU-hours") < 2
    assert methods.weak_teacher(t).data.row_count() == 61_135
    assert methods.dpo(t).data.row_count() == 61_135


def test_decoding_is_estimated_in_bytes_read() -> None:
    t = methods.transition("qwen", weak="3B", strong="7B", scale=scale("paper"))
    prompts = HubPrompts(repo="HuggingFaceH4/ultrafeedback_binarized", revision="0" * 40, split="test_prefs", count=80)
    stage, resources = t.generate(t.strong, prompts), load_profile("h200x8")
    slots = stage.execution(resources).decoding.rows_at_a_time
    per_step = 2 * 7_615_616_512 + slots * 400 * 57_344
    reading = 80 * 400 / slots * per_step / (0.5 * 4800e9)
    prefill = 2 * 7_615_616_512 * 80 * 200 / (0.4 * 989e12)
    assert work_of(stage, resources).gpu_seconds == pytest.approx(reading + prefill)
    cpu = load_profile("laptop")
    assert work_of(stage, cpu).gpu_seconds > L40["gb_per_second"] / 4800 * work_of(stage, resources).gpu_seconds
    # A judge's questions are counted, and a model that is downloaded takes its place once.
    contest = scale("paper").contests(0)[1]
    assert estimate([methods.compete(t, t.strong, contest)], resources).requests == 2 * 500
    assert (
        estimate([stage, stage], resources).disk_bytes - 2 * work_of(stage, resources).disk_bytes == 2 * 7_615_616_512
    )


@pytest.mark.parametrize(
    ("low", "high", "bounds", "verdict"),
    [
        (0.1, 0.3, {"above": 0.0}, HELD),
        (-0.3, -0.1, {"above": 0.0}, NOT_HELD),
        (-0.1, 0.3, {"above": 0.0}, UNDECIDED),
        (0.0, 0.0, {"above": 0.0}, UNDECIDED),
        (-0.3, -0.1, {"below": 0.0}, HELD),
        (-0.5, 0.5, {"above": -1.0, "below": 1.0}, HELD),
        (1.1, 1.5, {"above": -1.0, "below": 1.0}, NOT_HELD),
        (0.9, 1.5, {"above": -1.0, "below": 1.0}, UNDECIDED),
    ],
)
def test_a_claim_is_decided_by_its_interval(low, high, bounds, verdict) -> None:
    assert Claim(text="", estimate=interval(low, high), **bounds).verdict == verdict


def test_an_observation_takes_all_its_decisive_claims_to_hold_and_one_to_fail() -> None:
    held, failed, open_ = (
        Claim(text=text, estimate=interval(low, high), above=0.0)
        for text, low, high in (("a", 1, 2), ("b", -2, -1), ("c", -1, 1))
    )
    aside = Claim(text="d", estimate=interval(-2, -1), above=0.0, decisive=False)
    verdicts = {
        HELD: (held, aside),
        NOT_HELD: (held, open_, failed),
        UNDECIDED: (held, open_),
    }
    for verdict, claims in verdicts.items():
        assert Observation(number=1, statement="s", claims=claims).verdict == verdict
    assert Observation(number=1, statement="s", claims=(aside,)).verdict == UNDECIDED
    assert Claim(text="never measured", estimate=None, above=0.0).verdict == UNDECIDED


def test_what_contradicts_the_paper_is_listed_whether_it_decides_or_not() -> None:
    aside = Claim(text="said beside", estimate=interval(-2, -1), above=0.0, published="+3", decisive=False)
    blocks = list(observation_blocks([Observation(number=4, statement="s", claims=(aside,))], measure="m."))
    assert blocks[1].rows == [("observation 4: said beside", "-1.50 [-2.00, -1.00], above 0 claimed", "+3")]  # pyright: ignore[reportAttributeAccessIssue]


def test_the_best_alpha_is_found_moderate_or_not(tmp_path: Path) -> None:
    def moderate(axes) -> float:
        return -abs(axes.get("alpha", 1.0) - 0.4) + 0.01 * axes["seed"]

    def lowest(axes) -> float:
        return -axes.get("alpha", 1.0) + 0.01 * axes["seed"]

    def any_seed_another(axes) -> float:
        return (axes["seed"] - 1) * axes.get("alpha", 1.0)

    expected = {moderate: (HELD, HELD), lowest: (NOT_HELD, HELD), any_seed_another: (UNDECIDED, UNDECIDED)}
    for reward, verdicts in expected.items():
        _, found = reproduced(Store(tmp_path / reward.__name__), "alpha_sweep", reward=reward)
        assert (found[5].verdict, found[6].verdict) == verdicts
        # What was not run decides nothing.
        assert found[1].verdict == found[3].verdict == UNDECIDED
        slopes = [claim.estimate.mean for claim in found[6].claims if claim.estimate]
        assert reward is not lowest or slopes == pytest.approx([-0.1, -0.1])


def test_a_loss_on_downstream_tasks_is_told_from_none(tmp_path: Path) -> None:
    def harmed(axes) -> float:
        return {"ConG-S": 0.45, "ConG": 0.499}.get(axes["method"], 0.5) + 0.001 * axes["seed"]

    _, found = reproduced(Store(tmp_path), "downstream", reward=harmed)
    claims = {claim.text.split(",")[1].strip(): claim for claim in found[7].claims}
    assert (claims["ConG-S"].verdict, claims["ConG"].verdict, found[7].verdict) == (NOT_HELD, HELD, NOT_HELD)
    assert claims["ConG-S"].estimate is not None
    assert claims["ConG-S"].estimate.mean == pytest.approx(-5)
    assert claims["ConG-S"].published == "-0.46 points"


def test_the_reproduction_has_a_page_per_part_and_calls_simulated_raters_so(tmp_path: Path) -> None:
    experiment = load(REPRODUCE)
    cells = experiment.cells(scale("tiny"), {"only": ("raters", "second_judge"), "seeds": (0,)})
    store = Store(tmp_path)
    handmade.publish(cells, store, reward=lambda axes: 1.0 + 0.1 * len(str(axes.get("method", ""))))
    plan = make_plan({cell.name: cell.stage for cell in cells}, store)
    job = Job(
        name="reproduce-tiny",
        experiment=experiment,
        cells=cells,
        scale=scale("tiny"),
        settings={},
        grid={},
        resources=INLINE,
        store=store,
        plan=plan,
    )
    page = report(job).page
    assert 'href="raters.html"' in page.read_text()
    assert 'href="second_judge.html"' in page.read_text()
    raters = (page.parent / "raters.md").read_text()
    assert "These raters are simulated" in raters
    assert "WR, simulated raters" in raters
    assert "human" not in raters.lower().replace("10 % human evaluation", "")
    assert "Cohen's kappa" in raters
    assert "| Base | " in (page.parent / "second_judge.md").read_text()


def test_a_noisy_judge_says_the_same_again_and_differs_from_the_exact_one() -> None:
    world = World()
    prompts = make_prompts(world, split="heldout", count=60, seed=0)
    pairs = [
        Pair(instruction=row["prompt"], output="sure " + "word " * (n % 5) + "done", baseline="sure word done")
        for n, row in enumerate(prompts)
    ]
    exact, noisy, another, fond = (
        ExactComparison(world=world),
        NoisyComparison(world=world, noise=0.5),
        NoisyComparison(world=world, noise=0.5, seed=1),
        NoisyComparison(world=world, noise=0.0, per_word=100.0),
    )
    said = {judge: [judge.verdict(pair).preference for pair in pairs] for judge in (exact, noisy, another, fond)}
    assert said[noisy] == [noisy.verdict(pair).preference for pair in pairs]
    assert said[noisy] != said[exact]
    assert said[noisy] != said[another]
    assert all(
        (found > 1.5) == (len(pair.output) > len(pair.baseline))
        for found, pair in zip(said[fond], pairs, strict=True)
        if found is not None and found != 1.5
    )
    with pytest.raises(ValueError, match="noise = -1 is below 0"):
        NoisyComparison(world=world, noise=-1)


def test_the_parts_share_what_they_have_in_common() -> None:
    cells = load(REPRODUCE).cells(scale("tiny"), {"seeds": (0,)})
    by_part: dict[str, set[str]] = {}
    for cell in cells:
        by_part.setdefault(str(cell.axes["part"]), set()).add(cell.stage.fingerprint)
    assert by_part["training_cost"] <= by_part["methods"]
    assert by_part["radar"] <= by_part["methods"]
    compared = {cell.stage.fingerprint for cell in cells if isinstance(cell.stage, Compare)}
    assert by_part["second_judge"] & by_part["methods"] <= compared
    assert any(isinstance(cell.stage, Evaluate) for cell in cells)
    assert all(isinstance(cell, Cell) for cell in cells)
