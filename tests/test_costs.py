"""What methods and runs cost, on a real graph whose records say what every stage took."""

import csv
import io
from collections.abc import Iterable

import pytest
import small

from cong import methods
from cong.experiment import Cell, Results, collect
from cong.graph.stage import Stage, topological
from cong.graph.store import Store
from cong.report.blocks import Table
from cong.report.costpage import as_csv, cost_blocks
from cong.report.costs import Cost, method_costs, unit_of
from cong.synthetic.stages import Pretrain

SECONDS = {"SFT": 100.0, "DPO": 200.0, "ReferenceLogprobs": 10.0, "Generate": 20.0, "ContrastiveGenerate": 30.0}
"""What every other stage took: 1 s."""


def publish(store: Store, cells: Iterable[Cell], *, gpus: int) -> Results:
    """Finish all stages of the cells without running them: each held `gpus` GPUs and two CPUs."""
    found = list(cells)
    for stage in topological([cell.stage for cell in found]):
        store.directory(stage).mkdir(parents=True)
        store.publish(stage, record(stage, gpus=gpus))
    return collect(found, store)


def record(stage: Stage, *, gpus: int) -> dict:
    seconds = SECONDS.get(stage.name, 1.0)
    results: dict = {"tokens": 7.5}
    if stage.name in SECONDS:
        results = {"tokens": 1000, "tokens_per_second": 1000 / seconds}
    elif stage.name == "Compare":
        results = {"cost": 0.25, "input_tokens": 30, "output_tokens": 3}
    return {
        "stage": stage.name,
        "label": stage.label(),
        "fingerprint": stage.fingerprint,
        "seconds": seconds,
        "gpu_seconds": seconds * gpus,
        "cpu_seconds_reserved": 2 * seconds,
        "results": results,
    }


def test_a_method_costs_what_its_trainings_and_their_data_took(store):
    costs = {cost.method: cost for cost in method_costs(publish(store, small.cells(None), gpus=4))}
    assert list(costs) == ["Base", "Weak SFT (pre)", "Weak SFT (post)", "ConG-S", "ConG"]
    # Stage I alone, and with it Stage II and the log-probabilities of its reference.
    assert [cost.seconds for cost in costs["ConG-S"].training] == [100.0]
    assert [cost.seconds for cost in costs["ConG"].training] == [310.0]
    # Candidates (20), their scores and pairs (1 each), reference (10) and DPO (200) align the weak model; one more
    # second are the prompts.
    alignment = 20 + 1 + 1 + 10 + 200
    assert costs["ConG-S"].needed[0].seconds == 1 + alignment + 30 + 100
    assert costs["Weak SFT (post)"].needed[0].seconds == 1 + alignment + 20 + 100
    assert costs["ConG"].needed[0].seconds == 1 + alignment + 30 + 100 + (20 + 1 + 10 + 200)
    assert costs["ConG"].needed[0].gpu_seconds == 4 * costs["ConG"].needed[0].seconds
    assert costs["ConG"].needed[0].tokens == 6 * 1000


def test_what_methods_share_is_no_methods_own(store):
    costs = {cost.method: cost for cost in method_costs(publish(store, small.cells(None), gpus=4))}
    assert costs["Weak SFT (pre)"].own[0].seconds == 20 + 100
    assert costs["ConG"].own[0].seconds == 20 + 1 + 10 + 200
    assert costs["ConG-S"].own == (Cost(),)


def test_a_method_without_training_costs_nothing_and_the_starting_model_is_given(store):
    results = publish(store, small.cells(None), gpus=0)
    base = method_costs(results)[0]
    assert isinstance(results[0].cell.stage.evaluated_model, Pretrain)
    assert (base.training, base.needed, base.own) == ((Cost(),), (Cost(),), (Cost(),))


def test_every_seed_counts_for_itself_and_every_model_once(store):
    one, other = small.cells(None), small.cells(None, prompts=32)
    again = [Cell(stage=cell.stage, axes={**cell.axes, "decoding": "again"}) for cell in one]
    costs = method_costs(publish(store, [*one, *other, *again], gpus=4))
    assert [len(cost.training) for cost in costs] == [1, 2, 2, 2, 2]


@pytest.mark.parametrize(("gpus", "unit", "hours"), [(4, "GPU", 4 * 310 / 3600), (0, "CPU", 2 * 310 / 3600)])
def test_hours_are_those_of_gpus_and_without_any_those_of_cpus(store, gpus, unit, hours):
    training = method_costs(publish(store, small.cells(None), gpus=gpus))[-1].training
    assert unit_of(training) == unit
    assert training[0].hours(unit) == pytest.approx(hours)


def test_no_results_cost_nothing():
    assert method_costs([]) == []


def tables(store: Store, cells: list[Cell], *, gpus: int) -> dict[str, Table]:
    """Return the cost tables of a report by title."""
    results = publish(store, cells, gpus=gpus)
    return {table.title: table for table in cost_blocks(topological([cell.stage for cell in cells]), store, results)}


def row(table: Table, name: str) -> dict[str, str]:
    """Return the row of a name, by column."""
    found = next(cells for cells in table.rows if cells[0] == name)
    return dict(zip(table.columns, found, strict=True))


def test_the_methods_are_listed_as_in_the_papers_table_5(store):
    seeds = [*small.cells(None), *small.cells(None, prompts=32)]
    table = tables(store, seeds, gpus=4)["What each method cost, in GPU-hours"]
    hours = 4 * 310 / 3600
    assert row(table, "ConG") == {
        "method": "ConG",
        "its training": f"{hours:.3f} ± 0.000",
        "all that it needs": f"{4 * 594 / 3600:.3f} ± 0.000",
        "needed by no other method": f"{4 * 231 / 3600:.3f} ± 0.000",
        "models": "2",
    }
    assert row(table, "Base")["its training"] == "0"
    assert "times the GPUs" in table.caption


def test_methods_between_other_models_are_not_averaged(store):
    one, other = small.cells(None), small.cells(None, prompts=32)
    cells = [
        Cell(stage=cell.stage, axes={**cell.axes, "weak": size, "strong": "7B", "family": family})
        for found, size, family in ((one, "1.5B", "qwen"), (other, "3B", "qwen"), (other, "3B", "llama"))
        for cell in found
    ]
    table = tables(store, cells, gpus=4)["What each method cost, in GPU-hours"]
    names = [cells[0] for cells in table.rows if cells[0].startswith("ConG,")]
    assert names == ["ConG, qwen, weak 1.5B", "ConG, qwen, weak 3B", "ConG, llama, weak 3B"]
    assert {cells[-1] for cells in table.rows} == {"1"}


def test_every_kind_of_stage_has_its_hours_its_tokens_and_its_judges_bill(store):
    cells = small.cells(None)
    t = methods.transition("qwen", weak="1.5B", strong="1.5B", scale=small.small_scale())
    compared = [methods.compete(t, model, t.scale.contests(0)[0]) for model in (methods.base(t), methods.dpo(t))]
    found = tables(store, [*cells, *(Cell(stage=one, axes={}) for one in compared)], gpus=4)
    kinds = found["What was run"]
    assert row(kinds, "DPO") == {
        "stage": "DPO",
        "count": "2",
        "GPU-hours": f"{4 * 400 / 3600:.3g}",
        "seconds in all": "400.0",
        "longest": "200.0",
        "tokens": "2,000",
        "tokens per second": "5",
        "judge tokens": "",
        "judge US$": "",
    }
    judged = row(kinds, "Compare")
    assert (judged["count"], judged["judge tokens"], judged["judge US$"]) == ("2", "66", "0.50")
    # An evaluation's `tokens` are the mean length of its responses; reference log-probabilities count none.
    assert row(kinds, "Evaluate")["tokens"] == row(kinds, "ReferenceLogprobs")["tokens"] == ""
    assert "Judges: 66 tokens, 0.50." in kinds.caption
    every = found["Every stage"]
    assert every.folded
    assert every.rows[0][0].startswith("DPO (beta=")
    assert len(every.rows) == sum(int(cells[1]) for cells in kinds.rows)


def test_without_judges_and_gpus_the_page_says_so(store):
    aligned = small.cells(None, weak=True)[1]
    kinds = tables(store, [Cell(stage=aligned.stage.data.scored.responses, axes={})], gpus=0)["What was run"]  # pyright: ignore
    assert kinds.columns[2] == "CPU-hours"
    assert "judge tokens" not in kinds.columns
    assert "No GPU took part" in kinds.caption


def test_an_unknown_price_is_no_price(store):
    assert (Cost(dollars=None) + Cost(dollars=None)).dollars is None
    assert (Cost(dollars=0.5) + Cost(dollars=None) + Cost(dollars=0.25)).dollars == 0.75


def test_the_csv_holds_every_finished_stage(store):
    cells = small.cells(None)
    publish(store, cells[:2], gpus=4)
    stages = topological([cell.stage for cell in cells])
    rows = list(csv.DictReader(io.StringIO(as_csv(stages, store))))
    assert [one["fingerprint"] for one in rows] == [one.fingerprint for one in stages if store.is_complete(one)]
    assert {(one["seconds"], one["gpu_seconds"], one["tokens"]) for one in rows if one["stage"] == "SFT"} == {
        ("100.0", "400.0", "1000")
    }
