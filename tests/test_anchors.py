"""The page of anchor and data: every method end to end, their budgets of tokens, and its plans."""

import re
from pathlib import Path

import pytest
from test_method_experiments import run_experiment, table

from cong.data import RESPONSES, read_rows
from cong.errors import UserError
from cong.experiment import load
from cong.graph.stage import topological
from cong.report import Text
from cong.scales import scale

EXPERIMENT = Path(__file__).resolve().parents[1] / "experiments" / "anchors.py"
STUDENTS = (
    "ConG-S", "OPD (weak anchor)", "Proxy SFT", "Proxy SFT (w = 1)", "WSPO", "W2S-OPD", "W2S-OPD (w = 1)",
)  # fmt: skip


def test_every_method_runs_end_to_end_and_the_page_shows_its_place_and_its_tokens(small_run, tmp_path):
    settings = {"families": ("qwen",), "weak": "1.5B", "strong": "1.5B"}
    results, blocks = run_experiment(EXPERIMENT, small_run.store, settings, tmp_path)
    square, rows = table(blocks, "Anchor and data, qwen"), table(blocks, "Rewards and tokens, qwen")
    places = {
        anchor: [re.findall(r"(?:^|; )(.+?) -?\d+\.\d\d \[", cell) for cell in cells]
        for anchor, cells in square.items()
    }
    assert places == {
        "weak anchor": [["ConG-S"], ["OPD (weak anchor)"]],
        "strong anchor": [["Proxy SFT", "Proxy SFT (w = 1)", "WSPO"], ["W2S-OPD", "W2S-OPD (w = 1)"]],
    }
    assert any(isinstance(block, Text) and "anchor, own rollouts: W2S-OPD" in block.text for block in blocks)
    assert {name for name, row in rows.items() if any(row[3:])} >= set(STUDENTS)
    assert rows["Proxy (untrained)"][3:] == rows["Proxy (untrained, w = 1)"][3:] == rows["Base"][3:] == ("", "", "")
    stages = {result.axes["method"]: result.cell.stage.evaluated_model for result in results}
    for name in STUDENTS:
        data = [stage.data for stage in stages[name].trainings if stage.name in ("SFT", "WSPO", "Distil")]
        made = [row for stage in data for row in read_rows(small_run.store.directory(stage) / RESPONSES)]
        assert len({row["prompt_id"] for row in made}) == len(made) == 48
        generated = sum(row["num_tokens"] for row in made) / 1000
        assert float(rows[name][3]) == pytest.approx(generated, abs=0.05)
    # OPD has a pass of three models per round, WSPO one per model: here the strong model is the weak one.
    for name, passes in (("W2S-OPD", 2), ("OPD (weak anchor)", 2), ("WSPO", 2)):
        read = [stage for stage in stages[name].trainings if stage.name.endswith("Logprobs")]
        tokens = [small_run.store.record(stage)["results"]["tokens"] for stage in read]
        assert len(tokens) == passes
        assert min(tokens) > 0
        assert float(rows[name][4]) == pytest.approx(sum(tokens) / 1000, abs=0.05)


def test_every_student_reads_its_responses_equally_often():
    for name in ("tiny", "small", "paper"):
        cells = load(EXPERIMENT).cells(scale(name), {"families": ("qwen",)})
        models = {cell.axes["method"]: cell.stage.evaluated_model for cell in cells}
        assert len({models[one].epochs for one in STUDENTS}) == 1
        assert len({models[one].global_batch_size for one in STUDENTS}) == 1


@pytest.mark.parametrize("name", ["tiny", "small", "paper"])
def test_the_page_can_be_planned_at_every_scale(name):
    given = scale(name)
    cells = load(EXPERIMENT).cells(given, {"seeds": (0, 1)})
    assert len({cell.name for cell in cells}) == len(cells)
    families = {str(cell.axes["family"]) for cell in cells}
    assert families == set(given.sizes)
    assert len(topological([cell.stage for cell in cells])) > 80


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"families": ("llama-qwen",)}, "two tokenizers"),
        ({"families": ("gpt",)}, "families=gpt: unknown gpt"),
        ({"alpha": 0.0}, "alpha = 0.0 is not above 0"),
        ({"weight": float("nan")}, "weight = nan is not finite"),
        ({"weight": 1.0}, "weight = 1 is that of the further rows"),
    ],
)
def test_a_mistaken_axis_is_one_clear_line(settings, message):
    with pytest.raises(UserError, match=message):
        load(EXPERIMENT).cells(scale("tiny"), settings)
