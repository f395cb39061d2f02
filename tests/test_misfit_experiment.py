"""The experiment of misfit: what it measures beside it, its page, its plans, and its mistakes."""

from pathlib import Path

import pytest
import small
from handmade import publish
from toy import run

from cong import methods
from cong.data import PROMPTS, read_rows
from cong.errors import UserError
from cong.evaluation import EVALUATION
from cong.experiment import load
from cong.report import Figure, Table, write_report
from cong.scales import scale

EXPERIMENT = Path(__file__).resolve().parents[1] / "experiments" / "misfit.py"


def transition() -> methods.Transition:
    return methods.transition("qwen", weak="1.5B", strong="1.5B", scale=small.small_scale())


def test_epochs_change_the_training_and_nothing_before_it():
    t = transition()
    longer = methods.with_epochs(t, epochs=5)
    for make in (methods.weak_sft_post, lambda t: methods.cong_s(t, alpha=0.4)):
        one, other = make(t), make(longer)
        assert (other.epochs, other.data, other.model) == (5, one.data, one.model)
    same = methods.with_epochs(t, epochs=t.scale.sft.epochs)
    assert methods.cong_s(same, alpha=0.4) == methods.cong_s(t, alpha=0.4)


def test_what_was_trained_on_is_judged_on_the_first_training_prompts(small_run):
    t = transition()
    stage = methods.evaluate_trained_on(t, t.strong, count=5)
    run(small_run.store, stage)
    rows = read_rows(small_run.store.directory(stage) / EVALUATION)
    trained = read_rows(small_run.store.directory(t.prompts) / PROMPTS)
    assert {row["prompt_id"] for row in rows} == {row["prompt_id"] for row in trained[:5]}


def test_the_page_of_misfit_holds_every_table_and_figure(store, tmp_path):
    experiment = load(EXPERIMENT)
    settings = {"families": ("qwen", "llama-qwen"), "seeds": (0, 1), "domains": ("chat", "math"), "epochs": (1, 2)}
    cells = experiment.cells(scale("tiny"), settings)

    def reward(axes) -> float:
        # Gains are proportional to misfits: 1/2 per nat.
        misfit = 4 * float(str(axes["weak"])[:-1]) / float(str(axes["strong"])[:-1]) + 0.1 * axes["seed"]
        if axes.get("of") == "misfit":
            return misfit
        return 1.0 if axes["method"] == "Weak (aligned)" else 1.0 + misfit / 2

    results = publish(cells, store, reward=reward)
    blocks = experiment.report(results)
    write_report(tmp_path, name="page", title="t", description="", blocks=blocks)
    tables = {block.title: block for block in blocks if isinstance(block, Table)}
    rows = {row[0]: row[1:] for row in tables["Correlation of gain and misfit"].rows}
    assert rows["ConG-S, nats per response"] == ("24", "1.00 [1.00, 1.00]", "1.00 [1.00, 1.00]")
    chosen = {row[0]: row[1] for row in tables["Choosing a weak model: regret against the best one"].rows}
    assert chosen["smallest error - misfit"].startswith("0.00 [")
    assert float(chosen["smallest misfit (no labels)"].split()[0]) > float(chosen["at random"].split()[0]) > 0
    assert len(tables["All transitions, ConG-S"].rows) == 24
    corrected = {row[0]: row[1:] for row in tables["Correction and coverage, qwen, 3B to 7B"].rows}
    assert set(corrected) == {f"{domain}, {name}" for domain in ("chat", "math") for name in experiment.module.STUDENTS}
    assert corrected["math, ConG-S"][0] == "0.50"
    assert all(len(row) == 8 for row in corrected.values())
    assert [block.name for block in blocks if isinstance(block, Figure)] == ["misfit", "epochs"]
    for name in ("misfit", "epochs"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["tiny", "small", "paper"])
def test_misfit_can_be_planned_at_every_scale(name):
    given = scale(name)
    cells = load(EXPERIMENT).cells(given, {})
    assert len({cell.name for cell in cells}) == len(cells)
    transitions = {
        (cell.axes["family"], cell.axes["weak"], cell.axes["strong"])
        for cell in cells
        if cell.axes["panel"] == "transition"
    }
    assert len(transitions) >= {"tiny": 20, "small": 10, "paper": 10}[name]
    assert {family for family, _, _ in transitions} > set(given.sizes)
    assert {str(cell.axes["domain"]) for cell in cells if "domain" in cell.axes} == {"chat", *given.domains}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"students": ("DPO",)}, "students=DPO: there are Weak SFT"),
        ({"families": ("gpt",)}, "families=gpt: unknown gpt; there are qwen, llama"),
        ({"weak": "7B", "strong": "3B"}, "qwen: no transition has these sizes; there are 1.5B to 3B"),
        ({"epochs": (0,)}, "epochs = 0 is below 1"),
        ({"trained": 0}, "count = 0 is below 1"),
    ],
)
def test_a_mistaken_axis_of_misfit_is_one_clear_line(given, message):
    with pytest.raises(UserError, match=message):
        load(EXPERIMENT).cells(scale("tiny"), given)
