"""A whole run of the small experiment: cells, tracking, report, evaluation."""

import csv
import json
import math
import re
from pathlib import Path

import pytest
from commands import SECRET
from hypothesis import given
from hypothesis import strategies as st

from cong.data import SCORES, read_rows
from cong.evaluation import EVALUATION, Evaluate
from cong.evaluation.evaluate import bootstrap
from cong.experiment import Cell, Result, collect
from cong.graph.plan import make_plan
from cong.graph.store import Store
from cong.report import Figure, Responses, Table, Text, write_report
from cong.report.statistics import estimate
from cong.run import launch
from cong.run.job import prepare
from cong.scoring import Score
from cong.tracking import CELLS, PARENT, tracking_uri

METHODS = ["Base", "Weak SFT (pre)", "Weak SFT (post)", "ConG-S", "ConG"]


def test_every_method_ends_with_an_evaluation(small_run):
    results = collect(small_run.cells, small_run.store)
    assert [result.axes["method"] for result in results] == METHODS
    for result in results:
        assert result.values["prompts"] == 8
        assert result.values["reward_low"] <= result.values["reward"] <= result.values["reward_high"]
    assert results[0].values["win_rate"] == 0.5


def test_the_mean_reward_is_the_mean_of_the_rewards(small_run):
    for result in collect(small_run.cells, small_run.store):
        scored = read_rows(small_run.store.directory(_scored(result)) / SCORES)
        assert result.values["reward"] == pytest.approx(sum(row["reward"] for row in scored) / len(scored))
        assert len(result.rows(EVALUATION)) == 8


def test_a_second_run_computes_nothing_and_says_who_made_each_stage(small_run, capsys):
    plan = make_plan({cell.name: cell.stage for cell in small_run.cells}, small_run.store)
    assert plan.todo == ()
    again = prepare(
        small_run.experiment.path,
        scale="tiny",
        assignments=["alpha=0.4"],
        resources=small_run.resources,
        store=small_run.store,
    )
    launch.run(again)
    assert "0 stages computed" in capsys.readouterr().out
    client, experiment = _mlflow(small_run)
    cells = [run for run in _runs(client, experiment) if run.data.params.get("method") == "ConG"]
    assert len(cells) == 2
    made_by = [_made_by(run) for run in cells]
    assert made_by[0] == made_by[1]
    assert all(client.get_run(run_id).info.status == "FINISHED" for run_id in made_by[0].values())


def test_another_alpha_keeps_the_weak_alignment_and_redoes_generation_onward(small_run):
    job = prepare(
        small_run.experiment.path,
        scale="tiny",
        assignments=["alpha=0.3"],
        resources=small_run.resources,
        store=small_run.store,
    )
    todo = {stage.name for stage in job.plan.todo}
    assert todo == {
        "ContrastiveGenerate",
        "SFT",
        "Generate",
        "Score",
        "PreferencePairs",
        "ReferenceLogprobs",
        "DPO",
        "Evaluate",
    }
    assert sum(stage.name == "DPO" for stage in job.plan.todo) == 1
    assert not todo & {"Pretrain", "BestAgainstWorst"}


def test_mlflow_holds_the_tree_of_experiment_cells_and_stages(small_run):
    client, experiment = _mlflow(small_run)
    runs = _runs(client, experiment)
    parents = [run for run in runs if PARENT not in run.data.tags]
    first = min(parents, key=lambda run: run.info.start_time)
    cells = [run for run in runs if run.data.tags.get(PARENT) == first.info.run_id]
    stages = [run for run in runs if run.data.tags.get(PARENT) in {cell.info.run_id for cell in cells}]
    assert sorted(cell.data.params["method"] for cell in cells) == sorted(METHODS)
    assert len(stages) == len(small_run.plan.todo) == len({run.data.tags["cong.fingerprint"] for run in stages})
    assert all(run.info.status == "FINISHED" for run in [first, *cells, *stages])
    assert all("reward" in cell.data.metrics for cell in cells)


def test_stage_runs_hold_params_curves_samples_and_the_record(small_run):
    client, experiment = _mlflow(small_run)
    training = [run for run in _runs(client, experiment) if run.data.tags.get("cong.stage") == "SFT"]
    run = training[0]
    assert float(run.data.params["learning_rate"]) == 1e-3
    assert len(client.get_metric_history(run.info.run_id, "loss")) >= 1
    assert "record.json" in {item.path for item in client.list_artifacts(run.info.run_id)}
    decoding = [run for run in _runs(client, experiment) if run.data.tags.get("cong.stage") == "ContrastiveGenerate"]
    assert decoding[0].data.metrics["tokens_per_second"] > 0
    assert {item.path for item in client.list_artifacts(decoding[0].info.run_id, "samples")} == {
        "samples/responses.json"
    }


def test_the_parent_run_holds_the_report(small_run):
    client, experiment = _mlflow(small_run)
    parent = next(run for run in _runs(client, experiment) if PARENT not in run.data.tags)
    assert "report/small-tiny.html" in {item.path for item in client.list_artifacts(parent.info.run_id, "report")}


def test_the_parent_run_holds_one_table_of_all_cells(small_run, tmp_path):
    client, experiment = _mlflow(small_run)
    parent = min((r for r in _runs(client, experiment) if PARENT not in r.data.tags), key=lambda r: r.info.start_time)
    table = json.loads(Path(client.download_artifacts(parent.info.run_id, CELLS, str(tmp_path))).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["method"] for row in rows] == METHODS
    for cell, row in zip(small_run.cells, rows, strict=True):
        assert row["reward"] == pytest.approx(small_run.store.record(cell.stage)["results"]["reward"])


def test_no_secret_is_written_down(small_run):
    files = [path for path in small_run.store.root.rglob("*") if path.is_file()]
    assert len(files) > 100
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_records_are_complete(small_run):
    for stage in small_run.plan.stages:
        record = small_run.store.record(stage)
        assert record["tracking_run"]
        assert json.dumps(record["config"])
        assert record["seconds"] > 0


def test_a_report_is_one_file_that_needs_nothing_else(tmp_path):
    blocks = [
        Text(title="Note", text="<script>alert(1)</script>", warning=True),
        Table(title="Numbers", columns=("method", "reward"), rows=[("A", "1"), ("B", "2")], best=(None, 1)),
        Figure(title="Curve", name="curve", draw=lambda axes: axes.plot([0, 1], [1, 2])),
        Responses(title="Texts", prompts=[("say <b>hi</b>", {"A": "hi", "B": "ho"})]),
    ]
    written = write_report(tmp_path, name="page", title="A page", description="What it is.", blocks=blocks)
    page = written.page.read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert 'class="best">2' in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert {path.name for path in written.files} == {"page.html", "page.md", "curve.png", "curve.svg"}
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "| B | **2** |" in (tmp_path / "page.md").read_text()


def test_every_report_ends_with_the_responses_and_what_they_cost(small_run):
    directory = small_run.store.root / "reports" / small_run.name
    markdown = (directory / f"{small_run.name}.md").read_text()
    titles = re.findall("^## (.*)$", markdown, re.MULTILINE)
    assert titles[-4:] == ["Responses", "What each method cost, in CPU-hours", "What was run", "Every stage"]
    assert "All 8 prompts are on this page." in markdown
    assert {f"| {name} |" in markdown for name in METHODS} == {True}
    rows = list(csv.DictReader((directory / f"{small_run.name}-costs.csv").open()))
    assert [row["fingerprint"] for row in rows] == [stage.fingerprint for stage in small_run.plan.stages]
    trained = [int(row["tokens"]) for row in rows if row["stage"] in ("SFT", "DPO")]
    assert len(trained) > 3
    assert min(trained) > 0


def test_the_interval_over_seeds_is_students(small_run):
    cell = Cell(stage=small_run.cells[0].stage, axes={})
    results = [
        Result(cell=cell, values={"reward": value}, directory=small_run.store.root, store=Store(small_run.store.root))
        for value in (1.0, 2.0, 3.0)
    ]
    found = estimate(results, "reward")
    assert found.mean == 2
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert found.seeds == 3


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30))
def test_the_bootstrap_interval_holds_the_mean(values):
    found = bootstrap("x", values, seed=0)
    spread = max(values) - min(values) + 1e-9
    assert found["x_low"] - 1e-9 * spread <= found["x"] <= found["x_high"] + 1e-9 * spread
    assert min(values) - 1e-9 <= found["x_low"] <= found["x_high"] <= max(values) + 1e-9


def test_the_bootstrap_error_of_a_coin_is_that_of_the_binomial():
    found = bootstrap("x", [0.0, 1.0] * 200, seed=0)
    assert found["x_se"] == pytest.approx(0.5 / math.sqrt(400), rel=0.1)


def _scored(result: Result) -> Score:
    assert isinstance(result.cell.stage, Evaluate)
    assert isinstance(result.cell.stage.scored, Score)
    return result.cell.stage.scored


def _mlflow(job):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=tracking_uri(job.store))
    experiment = client.get_experiment_by_name(job.name)
    assert experiment is not None
    return client, experiment.experiment_id


def _runs(client, experiment) -> list:
    return list(client.search_runs([experiment], max_results=1000, order_by=["attributes.start_time ASC"]))


def _made_by(run) -> dict[str, str]:
    return {key: value for key, value in run.data.tags.items() if key.startswith("cong.made_by.")}
