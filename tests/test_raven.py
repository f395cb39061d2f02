"""RAVEN as a method, and its page end to end."""

import dataclasses
from pathlib import Path

import pytest
import small
from test_method_experiments import run_experiment, table

from cong import methods
from cong.errors import UserError
from cong.experiment import load
from cong.graph.stage import topological
from cong.report import Text
from cong.scales import scale
from cong.scoring import CommitteePairs
from cong.training import DPO, Raven

EXPERIMENT = Path(__file__).resolve().parents[1] / "experiments" / "raven.py"


def between(family: str = "qwen", seed: int = 0) -> methods.Transition:
    given = small.small_scale()
    return methods.transition(family, weak="1.5B", strong="3B", scale=given, seed=seed, strong_family="qwen")


def test_raven_is_weak_teacher_but_for_its_pairs_and_its_weights():
    t, other = between(), between("llama")
    student, teacher = methods.raven(t, members=(t.implicit, other.implicit)), methods.weak_teacher(t)
    shared = [item.name for item in dataclasses.fields(DPO) if item.init and item.name != "data"]
    assert {name: getattr(student, name) for name in shared} == {name: getattr(teacher, name) for name in shared}
    assert isinstance(student.data, CommitteePairs)
    assert [score.judge for score in student.data.scored] == [t.implicit, other.implicit]
    assert {score.responses for score in student.data.scored} == {t.candidates(t.strong)}
    assert student.rate == t.scale.committee_rate
    assert methods.raven(t, members=(t.implicit,), rate=0.0, easy=0.25).easy == 0.25


def test_members_and_rates_are_stages_of_their_own_that_share_pairs_and_the_reference_pass():
    t, other = between(), between("llama")
    both = (t.implicit, other.implicit)
    made = [methods.raven(t, members=both, rate=rate) for rate in (0.0, 0.1)]
    assert made[0].fingerprint != made[1].fingerprint
    assert made[0].data == made[1].data
    assert made[0].reference == made[1].reference
    assert methods.member_agreement(t, members=both).pairs == made[0].data


def test_every_committee_runs_end_to_end(small_run, tmp_path):
    settings = {"families": ("qwen",), "strong": "1.5B", "rate": 1.0}
    # Several steps: at the first one the student has not moved, and no weight can.
    given = small.small_scale(batch=16)
    results, blocks = run_experiment(EXPERIMENT, small_run.store, settings, tmp_path, given=given)
    for committee, third in (("in distribution", "qwen 3B"), ("out of distribution", "qwen 1.5B (shifted)")):
        names = ["qwen 1.5B", "llama 1.5B", third]
        rewards = table(blocks, f"{committee}, qwen")
        assert list(rewards) == ["Base", "Ceiling", *(f"{name} alone" for name in names),
                                 "Best single", "Smallest misfit", "Uniform weights", "RAVEN"]  # fmt: skip
        singles = [rewards[f"{name} alone"][0] for name in names]
        assert rewards["Best single"][0] in singles
        assert rewards["Smallest misfit"][0] in singles
        members = table(blocks, f"Members, {committee}, qwen")
        assert list(members) == names
        assert sum(float(row[1]) for row in members.values()) == pytest.approx(1.0, abs=0.02)
        assert sum(row[2] == "1 of 1" for row in members.values()) == 1
    assert any(isinstance(block, Text) and "RAVEN - Uniform weights" in block.text for block in blocks)
    trained = [result.cell.stage.evaluated_model for result in results if result.axes.get("method") == "RAVEN"]
    weights = [small_run.store.record(stage)["results"]["weight_1"] for stage in trained]
    assert len(set(weights)) == 2


@pytest.mark.parametrize("name", ["tiny", "small", "paper"])
def test_the_page_can_be_planned_at_every_scale_with_a_member_that_is_shifted(name):
    cells = load(EXPERIMENT).cells(scale(name), {"seeds": (0, 1)})
    assert len({cell.name for cell in cells}) == len(cells)
    trained = {stage for stage in topological([cell.stage for cell in cells]) if isinstance(stage, Raven)}
    committees = [stage.data.scored for stage in trained if len(stage.data.scored) == 3]  # pyright: ignore[reportAttributeAccessIssue]
    assert len(committees) == 8
    for members in committees:
        assert len({score.judge for score in members}) == 3
        assert len({score.judge.post for score in members}) == 3


def test_the_shift_may_be_a_domain():
    world, domain = (
        load(EXPERIMENT).cells(scale("tiny"), {"families": ("qwen",), "shift": shift}) for shift in (None, "math")
    )
    ours = {cell.stage.fingerprint for cell in world}
    changed = [cell.axes for cell in domain if cell.stage.fingerprint not in ours]
    assert {axes.get("member") or axes.get("committee") for axes in changed} == {
        "qwen 1.5B (shifted)", "out of distribution",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"families": ("gpt",)}, "families=gpt: there are"),
        ({"strong": "8B"}, "strong=8B: the sizes are"),
        ({"rate": -1.0}, "rate = -1.0"),
        ({"easy": 2.0}, r"easy = 2.0 is not in \[0, 1\]"),
        ({"shift": "history"}, "unknown domain 'history'"),
    ],
)
def test_a_mistaken_axis_is_one_clear_line(settings, message):
    with pytest.raises(UserError, match=message):
        load(EXPERIMENT).cells(scale("tiny"), settings)


def test_a_scale_without_a_second_family_or_a_size_between_is_refused():
    given = scale("tiny")
    alone = dataclasses.replace(given, sizes={"qwen": ("3B", "7B")})
    with pytest.raises(UserError, match="is the only family"):
        load(EXPERIMENT).cells(alone, {})
    with pytest.raises(UserError, match="three are needed"):
        load(EXPERIMENT).cells(dataclasses.replace(given, ladder={}), {})
