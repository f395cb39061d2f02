"""Methods of the field: what they are made of, the identities between them, and their table end to end."""

import dataclasses
import math
import re
from pathlib import Path

import pytest
import small
from test_method_experiments import run_experiment, table
from toy import run

from cong import methods
from cong.data import PAIRS, RESPONSES, SCORES, by_prompt, read_rows
from cong.errors import UserError
from cong.experiment import load
from cong.graph.stage import topological
from cong.report import Figure, Text
from cong.scales import scale
from cong.scoring import BestAgainstWorst, BestOfN, Score, WeighedPairs
from cong.training import Extrapolated

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = ROOT / "experiments" / "field.py"


def between(weak: str = "1.5B", strong: str = "1.5B") -> methods.Transition:
    return methods.transition("qwen", weak=weak, strong=strong, scale=small.small_scale())


def test_the_ceiling_of_a_model_is_its_alignment_with_the_true_reward():
    t = between(strong="3B")
    assert methods.ceiling(t.self_aligned) == methods.dpo(t)
    assert isinstance(methods.ceiling(t).data, BestAgainstWorst)
    assert dataclasses.replace(methods.ceiling(t), data=methods.weak_teacher(t).data) == methods.weak_teacher(t)
    best = methods.ceiling_sft(t).data
    assert isinstance(best, BestOfN)
    assert best.scored == methods.ceiling(t).data.scored  # pyright: ignore[reportAttributeAccessIssue]


def test_the_control_of_cong_s_differs_from_it_in_its_data_alone():
    t = between(strong="3B")
    control, student = methods.best_of_sft(t), methods.cong_s(t, alpha=0.4)
    assert dataclasses.replace(control, data=student.data) == student
    assert control.data == methods.best_of(t, n=t.scale.candidates.samples)
    assert methods.best_of_sft(t, n=2).data == methods.best_of(t, n=2)


def test_bootstrapping_along_two_sizes_is_weak_sft_and_along_more_each_teaches_the_next():
    given = small.small_scale()
    assert methods.bootstrapped("qwen", sizes=("1.5B", "3B"), scale=given) == methods.weak_sft_post(
        between(strong="3B")
    )
    long = methods.bootstrapped("qwen", sizes=("1.5B", "3B", "7B", "14B"), scale=given, seed=2)
    teacher = methods.bootstrapped("qwen", sizes=("1.5B", "3B", "7B"), scale=given, seed=2)
    assert long.data.model == teacher  # pyright: ignore[reportAttributeAccessIssue]
    assert long.model == given.model("qwen", "14B", 2)
    assert long.data.prompts == given.prompts(2)  # pyright: ignore[reportAttributeAccessIssue]


def test_weighed_methods_are_the_plain_ones_but_for_their_weights():
    t = between(strong="3B")
    weighed, plain = methods.cw_po(t), methods.weak_teacher(t)
    assert isinstance(weighed.data, WeighedPairs)
    assert weighed.data.pairs == plain.data
    assert dataclasses.replace(weighed, data=plain.data, weighted=False) == plain
    assert weighed.data.beta == t.scale.alignment.beta
    two, cong = methods.cw_cong(t, alpha=0.4, beta=0.5), methods.cong(t, alpha=0.4, beta=0.5)
    assert isinstance(two.data, WeighedPairs)
    assert two.data.pairs == cong.data
    assert dataclasses.replace(two, data=cong.data, weighted=False) == cong
    assert two.data == methods.cw_pairs(t, alpha=0.4)
    # The scores by which pairs are weighed are those by which Safe ConG filters them.
    safe = methods.confident_pairs(t, alpha=0.4, by="weak pair")
    assert (two.data.chosen, two.data.rejected) == (safe.chosen, safe.rejected)


def test_an_extrapolation_goes_on_from_where_the_training_began():
    t = between(strong="3B")
    moved = methods.expo(t)
    assert (moved.model, moved.start) == (methods.weak_teacher(t), t.strong)
    cong = methods.cong(t, alpha=0.4, beta=0.5)
    assert methods.expo(t, aligned=cong, step=0.1) == Extrapolated(
        model=cong, start=methods.cong_s(t, alpha=0.4), step=0.1
    )


def test_pairs_that_the_weak_pair_would_turn_weigh_nothing_or_are_turned(small_run):
    t = between()
    weighed, swapped = (methods.cw_pairs(t, alpha=0.4, swap=swap) for swap in (False, True))
    run(small_run.store, weighed, swapped)
    plain, turned = (by_prompt(read_rows(small_run.store.directory(one) / PAIRS)) for one in (weighed, swapped))
    assert plain.keys() == turned.keys()
    for key, row in plain.items():
        assert row["weight"] == pytest.approx(math.tanh(0.1 * max(row["gap"], 0) / 2))
        assert turned[key]["swapped"] == (row["gap"] < 0)
        assert turned[key]["weight"] == pytest.approx(math.tanh(0.1 * abs(row["gap"]) / 2))
    results = small_run.store.record(weighed)["results"]
    assert results["weight_zero"] == sum(row["gap"] <= 0 for row in plain.values())
    assert results["weight_q10"] <= results["weight_q90"]


def test_the_agreement_over_all_weights_is_that_of_the_pairs(small_run):
    t = between()
    by_weight, whole = methods.weight_agreement(t, alpha=0.4), methods.pair_agreement(t, alpha=0.4, explicit=True)
    of_teacher = methods.weight_agreement(t)
    run(small_run.store, by_weight, whole, of_teacher)
    parts, together = (small_run.store.record(one)["results"] for one in (by_weight, whole))
    counts = [parts[f"pairs_{number}"] for number in range(1, 5)]
    assert sum(counts) == parts["pairs"] == together["pairs"]
    assert max(counts) - min(counts) <= 1
    shares = [parts[f"chosen_better_{number}"] for number in range(1, 5)]
    mean = sum(count * share for count, share in zip(counts, shares, strict=True)) / sum(counts)
    assert mean == pytest.approx(together["chosen_better"])
    teacher = small_run.store.record(of_teacher)["results"]
    assert teacher["unscored"] == 0
    assert teacher["weight_1"] <= teacher["weight_4"]


def test_best_of_n_by_the_explicit_reward_rises_with_n_and_is_at_least_that_by_the_implicit_one(small_run):
    t = between()
    ns = (1, 2, 4)
    found = {
        explicit: [methods.evaluate_best_of(t, n=n, drawn=4, explicit=explicit) for n in ns]
        for explicit in (True, False)
    }
    run(small_run.store, *found[True], *found[False])
    rewards = {key: [small_run.store.record(one)["results"] for one in stages] for key, stages in found.items()}
    explicit, implicit = ([one["reward"] for one in rewards[key]] for key in (True, False))
    assert explicit == sorted(explicit)
    assert explicit[0] == implicit[0]
    assert all(one >= other for one, other in zip(explicit, implicit, strict=True))
    of_implicit = [one["implicit_reward"] for one in rewards[False]]
    assert of_implicit == sorted(of_implicit)


def test_the_data_of_the_second_ceiling_are_the_best_candidates(small_run):
    t = between()
    stage = methods.ceiling_sft(t)
    run(small_run.store, stage)
    assert isinstance(stage.data, BestOfN)
    best = read_rows(small_run.store.directory(stage.data) / RESPONSES)
    scores = read_rows(small_run.store.directory(stage.data.scored) / SCORES)
    assert len(best) == 48
    for row in best:
        mine = {one["row_id"]: one["reward"] for one in scores if one["prompt_id"] == row["prompt_id"]}
        assert mine[row["row_id"]] == max(mine.values())
    assert small_run.store.record(stage)["results"]["rows"] == 48


def test_every_method_of_the_field_runs_end_to_end(small_run, tmp_path):
    settings = {"families": ("qwen",), "weak": "1.5B", "strong": "7B", "best_of": (1, 2)}
    results, blocks = run_experiment(EXPERIMENT, small_run.store, settings, tmp_path)
    rows = table(blocks, "qwen, 1.5B to 7B")
    assert list(rows) == [
        "Weak", "Weak (aligned)", "Base", "Weak SFT (pre)", "Weak SFT (post)", "Bootstrapped", "Selective",
        "Trust", "Best-of-n SFT", "WeakTeacher", "CW-PO", "WSPO", "ExPO (WeakTeacher)", "ConG-S", "ConG", "CW-ConG",
        "ExPO (ConG)", "Ceiling (SFT)", "Ceiling", "Best of 16 (strong)", "Search 2x2", "Search 4x4", "Search SFT",
        "Proxy (untrained)", "Proxy SFT", "W2S-OPD",
    ]  # fmt: skip
    interval = r"-?\d+\.\d\d \[-?\d+\.\d\d, -?\d+\.\d\d\]"
    for row in rows.values():
        assert re.fullmatch(interval, row[0])
        assert all(re.fullmatch(f"{interval}|undefined", share) for share in row[1:4])
    for name, place, share in (("Ceiling", 1, "1.00"), ("Ceiling", 3, "1.00"), ("Ceiling (SFT)", 2, "1.00")):
        assert rows[name][place] in (f"{share} [{share}, {share}]", "undefined")
    assert rows["Weak (aligned)"][1] in ("0.00 [0.00, 0.00]", "undefined")
    assert rows["Base"][3] in ("0.00 [0.00, 0.00]", "undefined")
    assert rows["CW-PO"][4].endswith("◦")
    assert len([block for block in blocks if isinstance(block, Figure)]) == 1
    assert any(isinstance(block, Text) and block.title.startswith("Gaps, qwen") for block in blocks)
    assert set(table(blocks, "Are confident pairs the right ones? qwen, 1.5B to 7B")) == {"CW-PO", "CW-ConG"}
    assert (tmp_path / "report" / "best_of_n.png").stat().st_size > 1000
    assert all(math.isfinite(result.values["reward"]) for result in results if "method" in result.axes)


@pytest.mark.parametrize("name", ["tiny", "small", "paper"])
def test_the_table_of_the_field_can_be_planned_at_every_scale(name):
    given = scale(name)
    cells = load(EXPERIMENT).cells(given, {"seeds": (0, 1)})
    assert len({cell.name for cell in cells}) == len(cells)
    found = {str(cell.axes["family"]): (cell.axes["weak"], cell.axes["strong"]) for cell in cells}
    assert found == {family: (given.sizes_of(family)[0], given.sizes_of(family)[-1]) for family in given.sizes}
    long = {cell.axes["family"] for cell in cells if cell.axes.get("method") == "Bootstrapped"}
    assert long == {family for family in given.sizes if len(given.sizes_of(family)) > 2}
    assert len(topological([cell.stage for cell in cells])) > 80


def test_across_families_nothing_is_passed_from_size_to_size():
    cells = load(EXPERIMENT).cells(scale("tiny"), {"families": ("llama-qwen",)})
    names = [cell.axes["method"] for cell in cells if "method" in cell.axes]
    assert "Bootstrapped" not in names
    assert {"Best-of-n SFT", "CW-PO", "Ceiling"} <= set(names)
    for cell in cells:
        for stage in topological([cell.stage]):
            stage.check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weak": "2B"}, "weak=2B: the sizes are 1.5B, 3B, 7B, 14B"),
        ({"strong": "8B", "families": ("qwen",)}, "strong=8B: the sizes are"),
        ({"families": ("gpt",)}, "families=gpt: unknown gpt"),
        ({"best_of": (0, 4)}, "n = 0 is below 1"),
    ],
)
def test_a_mistaken_axis_is_one_clear_line(settings, message):
    with pytest.raises(UserError, match=message):
        load(EXPERIMENT).cells(scale("tiny"), settings)


def test_scores_of_a_best_of_n_are_those_of_its_samples(small_run):
    t = between()
    best = methods.best_of(t, n=3)
    again = Score(responses=best, judge=t.implicit)
    run(small_run.store, again)
    known = {row["row_id"]: row["reward"] for row in read_rows(small_run.store.directory(best.scored) / SCORES)}
    for row in read_rows(small_run.store.directory(again) / SCORES):
        assert row["reward"] == pytest.approx(known[row["row_id"]], abs=1e-3)
