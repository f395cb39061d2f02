"""Search as a stage and in the methods: it resumes, is planned, refuses in one line, and is best of n in its limit."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import small
import spoken
from searching import FAMILIES, assert_equal_rows, make_models, prompt_rows, stage
from toy import INLINE, run

from cong import methods
from cong.data import PROMPTS, RESPONSES, SCORES, read_rows, write_rows
from cong.errors import UserError
from cong.generation import Sampling
from cong.graph.resources import Resources, load_profile
from cong.graph.stage import Context
from cong.scales import scale
from cong.scoring import Score
from cong.scoring.scorers import LogprobScorer
from cong.search import Search
from cong.search.worker import PROPOSED


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"))


class Killed(Exception):
    """Stands for whatever ends a process."""


def context(out: Path, searching: Search, *, resources: Resources = INLINE, count: int = 10) -> Context:
    """A context whose prompts lie beside the output."""
    (out / "prompts").mkdir(parents=True)
    write_rows(out / "prompts" / PROMPTS, prompt_rows([f"go on {number}" for number in range(count)]))
    return Context(out=out, root=out, resources=searching.execution(resources), locate=lambda stage: out / "prompts")


def test_a_search_that_was_killed_goes_on_at_the_rows_that_are_missing(models, tmp_path, monkeypatch):
    searching = stage(models)
    # One row at a time, and three of them make a part.
    monkeypatch.setattr("cong.data.map_rows.PART_ROWS", 3)
    whole, killed = (context(tmp_path / name, searching, resources=INLINE.changed(slots=1)) for name in "ab")
    searching.run(whole)
    rounds, scored = itertools.count(), LogprobScorer.rewards

    def dying(scorer: LogprobScorer, batch, **settings) -> list[float]:
        if next(rounds) == 25:
            raise Killed
        return scored(scorer, batch, **settings)

    monkeypatch.setattr(LogprobScorer, "rewards", dying)
    with pytest.raises(Killed):
        searching.run(killed)
    monkeypatch.setattr(LogprobScorer, "rewards", scored)
    assert not (killed.out / RESPONSES).exists()
    searching.run(killed)
    assert 3 <= killed.results["rows_from_earlier_runs"] < 10
    assert killed.results[PROPOSED] == whole.results[PROPOSED]
    assert killed.results["backend"] == "slots"
    # Dropped continuations count as tokens too.
    used, kept = searching.usage(whole.results), whole.results["tokens"]
    assert used.tokens == whole.results[PROPOSED] > kept
    assert used.tokens_per_second == pytest.approx(whole.results["tokens_per_second"] * used.tokens / kept)
    assert_equal_rows(read_rows(killed.out / RESPONSES), read_rows(whole.out / RESPONSES))


def test_two_actors_find_what_one_process_finds(models, tmp_path, ray_of_two_cpus):
    searching = stage(models, **FAMILIES["a weak pair of longer tokens"])
    actors = Resources(name="actors").changed(actors=2, slots=4, cpus=2)
    alone, shared = (
        context(tmp_path / str(number), searching, resources=given) for number, given in enumerate((INLINE, actors))
    )
    for ctx in (alone, shared):
        searching.run(ctx)
    assert_equal_rows(read_rows(shared.out / RESPONSES), read_rows(alone.out / RESPONSES))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 0}, "beams = 0 is below 1"),
        ({"expansions": 0}, "expansions = 0 is below 1"),
        ({"chunk": 0}, "chunk = 0 is below 1"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0 is below 1"),
        ({"sampling": Sampling()}, "temperature = 0 makes all continuations equal"),
    ],
)
def test_a_setting_with_which_nothing_can_be_searched_is_one_line(models, settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        stage(models, **settings)
    with pytest.raises(ValueError, match=r"^top_k = 0 is below 1"):
        Sampling(temperature=1.0, top_k=0)


def test_models_that_cannot_be_searched_with_are_one_line_before_anything_runs(models, tmp_path):
    spoken.checkpoint(tmp_path / "bare", tokenizer=spoken.byte_tokenizer(template=None))
    bare = str(tmp_path / "bare")
    stage(models, **FAMILIES["a strong model of longer tokens"]).check()
    refused: list[tuple[dict[str, Any], str]] = [
        ({"pair": ("post", "merged-pre")}, "the weak pair has two tokenizers"),
        ({"strong": bare}, "has no chat template"),
        ({"pair": (bare, "pre")}, "has no chat template"),
        ({"strong": "nothing"}, "missing checkpoint"),
        ({"pair": ("post", "nothing")}, "missing checkpoint"),
    ]
    for settings, message in refused:
        with pytest.raises(UserError, match=message) as refusal:
            stage(models, **settings).check()
        assert "\n" not in str(refusal.value)


def test_a_search_takes_the_memory_of_three_models_and_the_longer_the_smaller_its_chunks():
    given = scale("paper")
    t = methods.transition("qwen", weak="1.5B", strong="14B", scale=given)
    resources = load_profile("h100x8")

    def searching(**settings) -> Search:
        found = methods.search(t, beams=2, expansions=2, chunk=30)
        return dataclasses.replace(found, **settings)

    alone = t.candidates(t.strong)
    whole, pair = (stage.memory(resources) for stage in (searching(), Score(responses=alone, judge=t.implicit)))
    plain = alone.memory(resources)
    assert whole is not None
    assert plain is not None
    assert pair is not None
    assert whole.weights == plain.weights + pair.weights
    # The profile's slots would not fit beside the weak pair.
    assert plain.total + pair.total > 0.9 * 80e9 >= whole.total
    slots = [one.execution(resources).decoding.rows_at_a_time for one in (searching(), alone)]
    assert slots[0] < slots[1]
    hours = [searching(chunk=chunk).work(resources).gpu_seconds for chunk in (None, 30, 5)]
    assert hours == sorted(hours)
    one = dataclasses.replace(alone, samples=4).work(resources).gpu_seconds
    assert hours[0] > one
    assert searching(beams=4).work(resources).gpu_seconds > 1.9 * hours[1]


def test_with_one_beam_and_whole_responses_it_is_best_of_n_row_for_row(small_run):
    t = methods.transition("qwen", weak="1.5B", strong="1.5B", scale=small.small_scale())
    searching = methods.search(t, beams=1, expansions=3, chunk=None, prompts=t.heldout)
    best_of = methods.best_of_strong(t, n=3, prompts=t.heldout)
    evaluated = methods.evaluate_search(t, beams=1, expansions=3, chunk=None)
    run(small_run.store, searching, best_of, evaluated)
    found, expected = (read_rows(small_run.store.directory(one) / RESPONSES) for one in (searching, best_of))
    scores = {row["row_id"]: row["reward"] for row in read_rows(small_run.store.directory(best_of.scored) / SCORES)}
    assert len(found) == len(expected) == 8
    for mine, other in zip(found, expected, strict=True):
        assert mine.pop(PROPOSED) >= mine["num_tokens"]
        assert mine.pop("implicit_reward") == pytest.approx(scores[other["row_id"]], abs=1e-3)
        of_sample = {"row_id", "sample", "implicit_reward"}
        own = {"logprob_post": pytest.approx(other["logprob_post"], abs=1e-3)}
        assert {key: mine[key] for key in mine.keys() - of_sample} == {
            key: value for key, value in (other | own).items() if key not in of_sample
        }
    results = small_run.store.record(evaluated)["results"]
    assert results["implicit_reward"] == pytest.approx(sum(scores[row["row_id"]] for row in expected) / 8, abs=1e-3)
    assert {"reward", "win_rate"} <= results.keys()


def test_what_is_trained_on_a_search_differs_from_other_students_in_its_data_alone():
    t = methods.transition("qwen", weak="1.5B", strong="3B", scale=small.small_scale())
    shape: dict[str, Any] = {"beams": 4, "expansions": 2, "chunk": 2}
    student, control = methods.search_sft(t, **shape), methods.best_of_sft(t)
    assert dataclasses.replace(student, data=control.data) == control
    assert student.data == methods.search(t, **shape)
    assert student.data.evaluated_model == t.strong
    assert methods.best_of_strong(t, n=2, drawn=4).scored == methods.best_of_strong(t, n=4).scored
    other = methods.search(dataclasses.replace(t, seed=1), **shape)
    longer = methods.search(t, beams=4, expansions=2, chunk=3)
    assert len({one.fingerprint for one in (student.data, other, longer)}) == 3
