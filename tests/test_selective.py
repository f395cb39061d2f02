"""Selective and Trust: what they are made of, whose rewards they see, and their page end to end."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import small
from test_method_experiments import run_experiment, table
from toy import run

from cong import methods
from cong.data import PROMPTS, RESPONSES, SCORES, by_prompt, read_rows
from cong.errors import UserError
from cong.experiment import load
from cong.graph.stage import topological
from cong.probing import Labelled, Mixture, Probe, Smoothed, TopShare
from cong.probing.probe import PROBE
from cong.report import Text
from cong.scales import scale
from cong.scoring import Score

EXPERIMENT = Path(__file__).resolve().parents[1] / "experiments" / "selective.py"


def between(strong: str = "1.5B") -> methods.Transition:
    return methods.transition("qwen", weak="1.5B", strong=strong, scale=small.small_scale())


def test_selective_and_trust_are_weak_sft_but_for_their_data():
    t = between("3B")
    naive, selective, trust = methods.weak_sft_post(t), methods.selective(t), methods.trust(t)
    assert dataclasses.replace(selective, data=naive.data) == dataclasses.replace(trust, data=naive.data) == naive
    assert isinstance(selective.data, Mixture)
    assert selective.data.otherwise == naive.data
    assert selective.data.scored.responses == t.respond(t.strong)
    assert isinstance(trust.data, TopShare)
    assert trust.data.responses == naive.data
    own = methods.own_answers(t)
    assert dataclasses.replace(own, data=naive.data) == naive


def test_p_ik_is_of_the_strong_model_at_the_prompt_and_trust_of_the_weak_one_at_the_labels_end():
    t = between("3B")
    knows, trusts = methods.p_ik(t), methods.trust_score(t)
    assert (knows.states.model, knows.states.of, knows.kind) == (t.strong, "prompt", "logistic")
    assert (trusts.states.model, trusts.states.of, trusts.kind) == (t.weak_aligned, "response", "mlp")
    assert (knows.states.token, trusts.states.token, knows.states.layer) == ("last", "last", -1)
    assert methods.p_ik_smoothed(t, smoothing=0) == knows
    assert isinstance(methods.p_ik_smoothed(t), Smoothed)


@pytest.mark.parametrize("make", [methods.selective, methods.trust])
def test_beside_the_weak_alignment_the_true_reward_is_asked_of_labelled_responses_alone(make):
    t = between("3B")
    ours = topological([make(t, labels=16)])
    aligned = {stage.fingerprint for stage in topological([methods.dpo(t)])}
    judged = [
        stage
        for stage in ours
        if isinstance(stage, Score) and stage.judge == t.reward and stage.fingerprint not in aligned
    ]
    assert judged
    for stage in judged:
        assert isinstance(stage.responses, Labelled)
        assert stage.responses.count == 16
    assert t.heldout.fingerprint not in {stage.fingerprint for stage in ours}


def test_no_held_out_prompt_is_labelled_and_both_probes_label_the_same_prompts(small_run):
    t = between()
    probes = methods.p_ik(t, labels=16), methods.trust_score(t, labels=16)
    run(small_run.store, *probes, t.heldout)
    labelled = [json.loads((small_run.store.directory(one) / PROBE).read_text())["labelled"] for one in probes]
    heldout = {row["prompt_id"] for row in read_rows(small_run.store.directory(t.heldout) / PROMPTS)}
    assert labelled[0] == labelled[1]
    assert len(set(labelled[0])) == 16
    assert heldout.isdisjoint(labelled[0])


def test_the_mixture_holds_its_own_answer_where_it_knows_and_the_weak_label_elsewhere(small_run):
    t = between("3B")
    data = methods.selective(t, labels=16).data
    run(small_run.store, data)
    assert isinstance(data, Mixture)
    known = {row["prompt_id"]: row["reward"] for row in read_rows(small_run.store.directory(data.scored) / SCORES)}
    sources = (data.scored.responses, data.otherwise)
    own, weak = (by_prompt(read_rows(small_run.store.directory(one) / RESPONSES)) for one in sources)
    mixed = by_prompt(read_rows(small_run.store.directory(data) / RESPONSES))
    assert mixed.keys() == weak.keys()
    for prompt_id, row in mixed.items():
        chosen = own if known[prompt_id] > 0.5 else weak
        assert row["response"] == chosen[prompt_id]["response"]


def test_every_row_and_every_probe_runs_end_to_end(small_run, tmp_path):
    settings = {"families": ("qwen",), "weak": "1.5B", "strong": "1.5B", "domains": ("chat",), "labels": 16}
    results, blocks = run_experiment(EXPERIMENT, small_run.store, settings, tmp_path)
    title = "chat, qwen, 16 labelled prompts, share 0.5"
    rows, probes = table(blocks, title), table(blocks, f"Probes, {title}")
    assert list(rows) == [
        "Weak", "Weak (aligned)", "Base", "Ceiling", "Weak SFT (post)", "Own answers", "Selective",
        "Selective (not smoothed)", "Trust", "Trust (mean state)", "Random share", "Likely share", "True share",
    ]  # fmt: skip
    assert all(re.fullmatch(r"-?\d+\.\d\d \[.*\]", row[0]) for row in rows.values())
    assert list(probes) == ["P(IK)", "P(IK), smoothed", "P(IK), mean state", "trust", "trust, mean state",
                            "likelihood", "chance"]  # fmt: skip
    assert probes["trust"][3] == probes["chance"][3] == "0.50"
    assert any(isinstance(block, Text) and "Trust - Random share" in block.text for block in blocks)
    found = {result.axes["probe"]: result.values for result in results if "probe" in result.axes}
    assert {values["rows"] for values in found.values()} == {32}
    counts = [
        small_run.store.record(result.cell.stage.evaluated_model)["results"]["rows"]
        for result in results
        if result.axes.get("method") in ("Trust", "Random share", "Likely share", "True share")
    ]
    assert counts == [24] * 4


@pytest.mark.parametrize("name", ["tiny", "small", "paper"])
def test_the_page_can_be_planned_at_every_scale(name):
    cells = load(EXPERIMENT).cells(scale(name), {"seeds": (0, 1)})
    assert len({cell.name for cell in cells}) == len(cells)
    assert {cell.axes["domain"] for cell in cells} == {"chat", scale(name).domains[0]}
    probes = [stage for stage in topological([cell.stage for cell in cells]) if isinstance(stage, Probe)]
    assert len(probes) == 16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": 0}, "labels = 0 is below 1"),
        ({"labels": 1024}, "labels = 1024 of 1024 prompts: none is left"),
        ({"share": 0.0}, "share = 0"),
        ({"smoothing": 1.0}, "share = 1.0 is not in"),
        ({"domains": ("history",)}, "unknown domain 'history'"),
    ],
)
def test_a_mistaken_axis_is_one_clear_line(settings, message):
    with pytest.raises(UserError, match=message):
        load(EXPERIMENT).cells(scale("tiny"), settings)
