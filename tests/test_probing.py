"""Probes: who is labelled, what a probe learns of whom, smoothing, and what a probe is worth on the others."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_training_tiny import Given, make_model, make_responses, run, summary

from cong.data import RESPONSES, SCORES, read_rows, write_rows
from cong.errors import NothingLeft
from cong.graph.stage import Stage
from cong.probing import HiddenStates, Labelled, Probe, ProbeQuality, Smoothed
from cong.probing.probe import PROBE, fitted
from cong.probing.smoothing import smoothed
from cong.scoring import Reward, Score


@dataclasses.dataclass(frozen=True, kw_only=True)
class Length(Reward):
    """The number of words of the prompt: what a state at the prompt can know."""

    def of(self, row: dict[str, Any]) -> float:
        return float(len(row["prompt"].split()))


def responses(directory: Path, *, rows: int = 24, words: str = "") -> Given:
    """Write responses as `Generate` does, and return the stage that they are of."""
    given = make_responses(directory, rows=rows)
    made = read_rows(directory / RESPONSES)
    more = {"sample": 0, "num_tokens": 3}
    made = [{"row_id": f"{row['prompt_id']}#0", **row, **more, "response": row["response"] + words} for row in made]
    write_rows(directory / RESPONSES, made)
    return given


def hidden(tmp_path: Path, *, rows: int = 24, **fields: Any) -> HiddenStates:
    data = responses(tmp_path / "responses", rows=rows)
    return HiddenStates(**{"model": make_model(tmp_path / "model"), "data": data, "max_length": 64, **fields})


def probe(tmp_path: Path, *, rows: int = 24, count: int = 12, **fields: Any) -> Probe:
    read = hidden(tmp_path, rows=rows, of="prompt", token="mean")
    part = Labelled(responses=read.data, count=count)
    return Probe(**{"states": read, "labels": Score(responses=part, judge=Length()), **fields})


def files(stage: Stage, tmp_path: Path, name: str) -> list[dict]:
    return read_rows(tmp_path / "store" / stage.name / stage.slug / name)


def test_labelled_prompts_are_the_same_for_all_stages_of_a_seed_and_keep_all_their_samples(tmp_path):
    one = responses(tmp_path / "one", rows=20)
    rows = read_rows(tmp_path / "one" / RESPONSES)
    (tmp_path / "two").mkdir()
    twice = [row | {"row_id": f"{row['prompt_id']}#{n}", "sample": n} for row in reversed(rows) for n in range(2)]
    write_rows(tmp_path / "two" / RESPONSES, twice)
    stages = [Labelled(responses=data, count=7) for data in (one, Given(directory=str(tmp_path / "two")))]
    chosen = []
    for stage in stages:
        run(stage, tmp_path / "store")
        chosen.append([row["prompt_id"] for row in files(stage, tmp_path, RESPONSES)])
    assert set(chosen[0]) == set(chosen[1])
    assert (len(chosen[0]), len(chosen[1])) == (7, 14)
    other = dataclasses.replace(stages[0], seed=1)
    run(other, tmp_path / "store")
    assert {row["prompt_id"] for row in files(other, tmp_path, RESPONSES)} != set(chosen[0])
    with pytest.raises(ValueError, match="labels = 0 is below 1"):
        Labelled(responses=one, count=0)


def test_a_probe_is_trained_on_the_labelled_part_alone(tmp_path):
    stage = probe(tmp_path)
    out = run(stage, tmp_path / "store")
    before = [row["reward"] for row in files(stage, tmp_path, SCORES)]
    labelled = {row["prompt_id"] for row in files(stage.labels, tmp_path, SCORES)}
    assert set(json.loads((out / PROBE).read_text())["labelled"]) == labelled
    assert len(labelled) == summary(out)["labelled"] == 12
    assert len(before) == 24
    assert all(0 <= chance <= 1 for chance in before)
    # Whatever the others' rewards are: they are not even asked for.
    assert len(files(stage.labels, tmp_path, SCORES)) == 12


def test_right_is_what_is_above_the_mean_of_the_labelled_or_of_the_bar(tmp_path):
    stage = probe(tmp_path)
    out = run(stage, tmp_path / "store")
    rewards = [row["reward"] for row in files(stage.labels, tmp_path, SCORES)]
    mean = sum(rewards) / len(rewards)
    assert summary(out)["bar"] == pytest.approx(mean)
    assert summary(out)["labelled_right"] == pytest.approx(np.mean([one > mean for one in rewards]))
    low = responses(tmp_path / "low", rows=24)
    write_rows(
        tmp_path / "low" / RESPONSES, [row | {"prompt": "ban"} for row in read_rows(tmp_path / "low" / RESPONSES)]
    )
    bar = Score(responses=Labelled(responses=low, count=12), judge=Length())
    barred = dataclasses.replace(stage, bar=bar)
    run(bar, tmp_path / "store")
    told = summary(run(barred, tmp_path / "store"))
    assert (told["bar"], told["labelled_right"]) == (1.0, 1.0)
    # Where all are right there is nothing to tell apart.
    assert {row["reward"] for row in files(barred, tmp_path, SCORES)} == {1.0}


def test_a_response_without_a_state_has_no_probability_and_says_why(tmp_path):
    stage = probe(tmp_path)
    rows = read_rows(tmp_path / "responses" / RESPONSES)
    write_rows(tmp_path / "responses" / RESPONSES, [rows[0] | {"prompt": " ".join(["ban"] * 99)}, *rows[1:]])
    run(stage, tmp_path / "store")
    silent, *others = files(stage, tmp_path, SCORES)
    assert silent["reward"] is None
    assert "no hidden state" in silent["error"]
    assert all(row["reward"] is not None and row["error"] is None for row in others)
    short = dataclasses.replace(stage, states=dataclasses.replace(stage.states, max_length=2))
    with pytest.raises(NothingLeft, match="both a reward and a hidden state"):
        run(short, tmp_path / "store")


def separated(*, rows: int, width: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return states of two classes that a line tells apart for the most part, and the classes."""
    rng = np.random.default_rng(seed)
    right = np.arange(rows) % 2 == 0
    return rng.normal(size=(rows, width)) + np.outer(right, np.full(width, 0.7)), right


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_a_probe_with_100_labels_tells_unseen_rows_apart_and_with_shuffled_labels_none(kind):
    from sklearn.metrics import roc_auc_score

    given, right = separated(rows=1100)

    def auc(labels: np.ndarray) -> float:
        chance = fitted(given[:100], labels, kind=kind, penalty=1.0, seed=0)
        return float(roc_auc_score(right[100:], chance(given[100:])))

    assert auc(right[:100]) > 0.9
    rng = np.random.default_rng(1)
    shuffled = [auc(rng.permutation(right[:100])) for _ in range(16)]
    assert np.mean(shuffled) == pytest.approx(0.5, abs=0.1)
    assert max(shuffled) < auc(right[:100])


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_a_probe_is_the_same_every_time(kind):
    given, right = separated(rows=60)
    first, second = (fitted(given, right, kind=kind, penalty=1.0, seed=3)(given) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_smoothing_of_hard_labels_is_that_of_label_spreading():
    from sklearn.neighbors import kneighbors_graph
    from sklearn.semi_supervised import LabelSpreading

    given, right = separated(rows=80)
    graph = kneighbors_graph(given, 7, metric="cosine", include_self=False)
    whole = graph.maximum(graph.T)
    kernel: Any = lambda x, y: whole  # noqa: E731
    spread = LabelSpreading(kernel=kernel, alpha=0.6, max_iter=5000, tol=1e-14).fit(given, right)
    found = smoothed(given, right.astype(float), share=0.6, neighbours=7)
    assert found.tolist() == pytest.approx(spread.label_distributions_[:, 1].tolist(), abs=1e-6)


def test_smoothing_by_0_changes_nothing_equal_scores_stay_and_a_lone_outlier_is_drawn_in():
    given, right = separated(rows=40)
    chances = np.where(right, 0.9, 0.2)
    assert smoothed(given, chances, share=0.0, neighbours=5).tolist() == chances.tolist()
    assert smoothed(given, np.full(40, 0.3), share=0.8, neighbours=5).tolist() == pytest.approx([0.3] * 40)
    chances[right] = 0.8
    odd = int(np.flatnonzero(right)[0])
    chances[odd] = 0.1
    drawn = smoothed(given, chances, share=0.5, neighbours=5)
    assert 0.1 < drawn[odd] < 0.8
    assert ((drawn >= 0) & (drawn <= 1)).all()


def test_smoothed_scores_are_those_of_the_probe_by_row(tmp_path):
    stage = probe(tmp_path)
    none, half = (Smoothed(scored=stage, states=stage.states, share=share, neighbours=4) for share in (0.0, 0.5))
    run(stage, tmp_path / "store")
    for one in (none, half):
        run(one, tmp_path / "store")
    given, same, drawn = (files(one, tmp_path, SCORES) for one in (stage, none, half))
    assert [(row["row_id"], row["reward"]) for row in same] == [(row["row_id"], row["reward"]) for row in given]
    assert [row["row_id"] for row in drawn] == [row["row_id"] for row in given]
    assert np.std([row["reward"] for row in drawn]) < np.std([row["reward"] for row in given])
    for fields, message in (({"share": 1.0}, "share = 1.0"), ({"neighbours": 0}, "neighbours = 0")):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(half, **fields)
    elsewhere = dataclasses.replace(stage.states, data=responses(tmp_path / "others"))
    with pytest.raises(ValueError, match="two sets of responses"):
        Smoothed(scored=stage, states=elsewhere)


def quality(stage: Probe, **fields: Any) -> ProbeQuality:
    truth = Score(responses=stage.responses, judge=Length())
    return ProbeQuality(**{"probe": stage, "scored": stage, "truth": truth, "share": 0.5, **fields})


def test_the_quality_of_a_probe_is_measured_on_prompts_without_labels(tmp_path):
    from sklearn.metrics import roc_auc_score

    stage = quality(probe(tmp_path))
    told = summary(run(stage, tmp_path / "store"))
    labelled = {row["prompt_id"] for row in files(stage.probe.labels, tmp_path, SCORES)}
    truth = {row["row_id"]: row["reward"] for row in files(stage.truth, tmp_path, SCORES)}
    rows = [row for row in files(stage.probe, tmp_path, SCORES) if row["prompt_id"] not in labelled]
    bar = summary(tmp_path / "store" / "Probe" / stage.probe.slug)["bar"]
    right = [truth[row["row_id"]] > bar for row in rows]
    best = sorted(zip([row["reward"] for row in rows], right, strict=True), reverse=True)[: len(rows) // 2]
    assert told["rows"] == len(rows) == 12
    assert told["base_rate"] == pytest.approx(np.mean(right))
    assert told["purity"] == pytest.approx(np.mean([one for _, one in best]))
    assert told["auc"] == pytest.approx(roc_auc_score(right, [row["reward"] for row in rows]))
    # The truth itself tells everything apart.
    perfect = summary(run(dataclasses.replace(stage, scored=stage.truth), tmp_path / "store"))
    assert perfect["auc"] == 1.0
    assert perfect["reward_kept"] > perfect["reward_all"]
    above = summary(run(dataclasses.replace(stage, share=None, threshold=0.5), tmp_path / "store"))
    assert above["kept"] == sum(row["reward"] > 0.5 for row in rows)


def test_what_is_kept_is_said_once_and_of_one_set_of_responses_with_some_unlabelled(tmp_path):
    stage = quality(probe(tmp_path))
    with pytest.raises(ValueError, match="by a share or by a threshold"):
        dataclasses.replace(stage, threshold=0.5)
    with pytest.raises(ValueError, match="different responses"):
        dataclasses.replace(stage, truth=Score(responses=responses(tmp_path / "others"), judge=Length()))
    whole = quality(probe(tmp_path, count=24))
    with pytest.raises(NothingLeft, match="all prompts are labelled"):
        run(whole, tmp_path / "store")


def test_a_probe_refuses_what_it_cannot_be(tmp_path):
    stage = probe(tmp_path, rows=2)
    for fields, message in (({"kind": "tree"}, "kind = 'tree'"), ({"penalty": 0.0}, "penalty = 0.0")):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(stage, **fields)
    made = [stage, dataclasses.replace(stage, kind="mlp"), dataclasses.replace(stage, penalty=2.0),
            dataclasses.replace(stage, seed=1), dataclasses.replace(stage, bar=stage.labels)]  # fmt: skip
    assert len({one.fingerprint for one in made}) == len(made)
