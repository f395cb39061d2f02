"""Safe Stage II: which pairs a margin keeps, what is said of them, and what happens when none is left."""

import dataclasses
import math
import shutil

import pytest
import small
from hypothesis import given
from hypothesis import strategies as st
from toy import INLINE, run

from cong import methods
from cong.data import PAIRS, RESPONSES, SCORES, by_prompt, read_rows, write_rows
from cong.data.prompts import LocalFile, PromptFile
from cong.graph.stage import Context, Stage
from cong.graph.store import Store
from cong.run import launch
from cong.run.job import Job, prepare
from cong.scoring import ConfidentPairs, Likelihood, PairAgreement, PreferencePairs, Reward, Score

GAPS = {"a": 3.0, "b": 0.5, "c": 0.0, "d": -0.5, "e": -3.0}

NOTHING_LEFT = """
import small
from cong import methods
from cong.experiment import Cell
from cong.report import Text


def cells(scale, *, margin: float = 1e9, may_lack: bool = True):
    t = methods.transition("qwen", weak="1.5B", strong="1.5B", scale=small.small_scale())
    models = {"ConG-S": methods.cong_s(t, alpha=0.4), "safe": methods.safe_cong(t, alpha=0.4, beta=0.5, margin=margin)}
    pairs = methods.confident_pairs(t, alpha=0.4, margin=margin)
    return [
        *(Cell(stage=methods.evaluate(t, m), axes={"method": n}, may_lack=may_lack) for n, m in models.items()),
        Cell(stage=methods.pair_agreement(t, alpha=0.4, explicit=True, pairs=pairs), axes={"agreement": "explicit"}),
    ]


def report(results):
    yield Text(text=", ".join(result.cell.name for result in results))
"""


def run_on(stage: Stage, inputs: dict[Stage, dict[str, list[dict]]], tmp_path) -> tuple[list[dict], dict]:
    """Run a stage of pairs on given rows; return its pairs, when it writes some, and what it says about itself."""
    for number, files in enumerate(inputs.values()):
        (tmp_path / str(number)).mkdir(exist_ok=True)
        for name, rows in files.items():
            write_rows(tmp_path / str(number) / name, rows)
    where = {item.fingerprint: tmp_path / str(number) for number, item in enumerate(inputs)}
    ctx = Context(out=tmp_path, root=tmp_path, resources=INLINE, locate=lambda item: where[item.fingerprint])
    stage.run(ctx)
    return read_rows(tmp_path / PAIRS) if isinstance(stage, ConfidentPairs) else [], ctx.results


def given_pairs(gaps: dict[str, float]) -> tuple[dict, dict]:
    """Return the stages that a filter reads, and rows for them: the chosen score exceeds the rejected by the gap."""
    chosen, rejected = (PromptFile(file=LocalFile(path=path)) for path in (__file__, small.__file__))
    pairs = PreferencePairs(chosen=chosen, rejected=rejected)
    rows = [{"prompt_id": key, "prompt": "?", "chosen": f"{key}+", "rejected": f"{key}-"} for key in gaps]
    inputs: dict[Stage, dict[str, list[dict]]] = {
        pairs: {PAIRS: rows},
        chosen: {SCORES: [{"prompt_id": key, "reward": -40.0 + gap} for key, gap in reversed(gaps.items())]},
        rejected: {SCORES: [{"prompt_id": key, "reward": -40.0} for key in gaps]},
    }
    return {"pairs": pairs, "chosen": chosen, "rejected": rejected}, inputs


@pytest.mark.parametrize(("margin", "kept"), [(0.0, "ab"), (0.5, "a"), (2.0, "a"), (3.0, "")])
def test_a_pair_is_kept_when_the_chosen_score_exceeds_the_rejected_by_more_than_the_margin(margin, kept, tmp_path):
    stages, inputs = given_pairs(GAPS)
    pairs, results = run_on(ConfidentPairs(**stages, margin=margin), inputs, tmp_path)
    assert [(row["prompt_id"], row["chosen"]) for row in pairs] == [(key, f"{key}+") for key in kept]
    assert results == {"pairs": len(kept), "swapped": 0, "dropped_by_margin": 5 - len(kept), "dropped_unscored": 0}


def test_with_swap_a_pair_that_is_better_the_other_way_round_is_turned(tmp_path):
    stages, inputs = given_pairs(GAPS)
    pairs, results = run_on(ConfidentPairs(**stages, margin=0.5, swap=True), inputs, tmp_path)
    assert [(row["chosen"], row["rejected"], row["gap"], row["swapped"]) for row in pairs] == [
        ("a+", "a-", 3.0, False),
        ("e-", "e+", 3.0, True),
    ]
    assert (results["pairs"], results["swapped"]) == (2, 1)


def test_a_pair_that_a_judge_could_not_score_is_dropped_and_counted(tmp_path):
    stages, inputs = given_pairs(GAPS)
    inputs[stages["chosen"]][SCORES][-1]["reward"] = None
    pairs, results = run_on(ConfidentPairs(**stages), inputs, tmp_path)
    assert [row["prompt_id"] for row in pairs] == ["b"]
    assert results["dropped_unscored"] == 1


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=20), st.floats(0, 5))
def test_a_larger_margin_keeps_fewer_pairs_and_a_swap_never_leaves_a_wrong_one(tmp_path_factory, values, margin):
    stages, inputs = given_pairs({f"p{number}": value for number, value in enumerate(values)})
    directory = tmp_path_factory.mktemp("margin")
    few, _ = run_on(ConfidentPairs(**stages, margin=margin, swap=True), inputs, directory)
    all_, _ = run_on(ConfidentPairs(**stages, swap=True), inputs, directory)
    assert {row["prompt_id"] for row in few} <= {row["prompt_id"] for row in all_}
    assert all(row["gap"] > margin for row in few)


def test_a_margin_below_zero_is_refused():
    stages, _ = given_pairs(GAPS)
    with pytest.raises(ValueError, match="margin = -1 is below 0"):
        ConfidentPairs(**stages, margin=-1)


def test_the_share_of_right_pairs_counts_swapped_pairs_the_other_way_round(tmp_path):
    stages, inputs = given_pairs(GAPS)
    confident = ConfidentPairs(**stages, swap=True)
    kept, _ = run_on(confident, inputs, tmp_path)
    before = run_on(PairAgreement(**stages), inputs, tmp_path)[1]
    after = run_on(PairAgreement(**stages | {"pairs": confident}), {**inputs, confident: {PAIRS: kept}}, tmp_path)[1]
    assert before == {"pairs": 5, "chosen_better": 0.5, "mean_gap": 0.0}
    assert after == {"pairs": 4, "chosen_better": 1.0, "mean_gap": 1.75}
    none = run_on(PairAgreement(**stages | {"pairs": confident}), {**inputs, confident: {PAIRS: []}}, tmp_path)[1]
    assert none == {"pairs": 0}


def test_the_likelihood_of_a_response_is_that_of_its_tokens_one_by_one(small_run):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    t = methods.transition("qwen", weak="1.5B", strong="1.5B", scale=small.small_scale())
    student = methods.cong_s(t, alpha=0.4)
    score = Score(responses=student.data, judge=Likelihood(model=student))
    run(small_run.store, score)
    scored = by_prompt(read_rows(small_run.store.directory(score) / SCORES))
    directory = small_run.store.directory(student) / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    for row in read_rows(small_run.store.directory(student.data) / RESPONSES)[:8]:
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["prompt"]}], add_generation_prompt=True, return_dict=False
        )
        answer = tokenizer(row["response"], add_special_tokens=False)["input_ids"]
        answer += [tokenizer.eos_token_id] * (row["finish_reason"] == "stop")
        total = 0.0
        for position, token in enumerate(answer):
            with torch.no_grad():
                logits = model(torch.tensor([asked + answer[:position]])).logits[0, -1]
            total += logits.log_softmax(-1)[token].item()
        assert scored[row["prompt_id"]]["reward"] == pytest.approx(total, abs=1e-3)


def test_both_judges_filter_the_pairs_of_the_same_stage_and_train_the_same_student():
    t = methods.transition("qwen", weak="3B", strong="7B", scale=small.small_scale())
    plain = methods.cong(t, alpha=0.4, beta=0.5)
    judges: dict[methods.JudgeOfPairs, Reward] = {"student": Likelihood(model=plain.model), "weak pair": t.implicit}
    for by, judge in judges.items():
        safe = methods.safe_cong(t, alpha=0.4, beta=0.5, margin=1, by=by)
        assert isinstance(safe.data, ConfidentPairs)
        assert safe.data.pairs == plain.data
        assert safe.data.chosen == Score(responses=safe.data.pairs.chosen, judge=judge)
        assert dataclasses.replace(safe, data=plain.data) == plain
    with pytest.raises(KeyError, match="coin"):
        methods.confident_pairs(t, alpha=0.4, by="coin")  # pyright: ignore[reportArgumentType]


def test_a_margin_that_leaves_no_pair_ends_in_a_clear_line_and_the_report_is_written_without_it(
    small_run, tmp_path, capsys
):
    path = tmp_path / "nothing.py"
    path.write_text(NOTHING_LEFT)
    job = _job(path, _copied(small_run, tmp_path))
    page = launch.run(job)
    out = capsys.readouterr().out
    assert "FAILED DPO" in out
    assert "no row of ConfidentPairs(likelihood,margin=1e+09) can be trained on" in out
    assert page.with_suffix(".md").read_text().splitlines()[4] == "method=ConG-S, agreement=explicit"
    agreement = job.store.record(job.cells[2].stage)["results"]
    assert agreement["pairs"] == 0
    assert "chosen_better" not in agreement


def test_a_cell_that_must_not_lack_its_result_fails_the_run(small_run, tmp_path):
    from cong.graph.runner import StageFailed

    path = tmp_path / "nothing.py"
    path.write_text(NOTHING_LEFT)
    with pytest.raises(StageFailed, match="can be trained on"):
        launch.run(_job(path, _copied(small_run, tmp_path), "may_lack=false"))


def test_a_zero_margin_keeps_what_the_student_prefers_and_trains_on_it(small_run):
    t = methods.transition("qwen", weak="1.5B", strong="1.5B", scale=small.small_scale())
    safe = methods.safe_cong(t, alpha=0.4, beta=0.5, swap=True)
    run(small_run.store, safe)
    results = small_run.store.record(safe.data)["results"]
    every = small_run.store.record(methods.cong_pairs(t, alpha=0.4))["results"]["pairs"]
    assert 0 < results["pairs"] <= every
    assert math.isfinite(small_run.store.record(safe)["results"]["train_loss"])


def test_four_betas_compute_the_reference_log_probabilities_once(small_run):
    t = methods.transition("qwen", weak="1.5B", strong="1.5B", scale=small.small_scale())
    store = small_run.store
    before = set((store.root / "ReferenceLogprobs").iterdir())
    models = [methods.safe_cong(t, alpha=0.4, beta=beta, swap=True, by="weak pair") for beta in (0.1, 0.3, 0.5, 1.0)]
    run(store, *models)
    assert len({model.fingerprint for model in models}) == 4
    assert len(set((store.root / "ReferenceLogprobs").iterdir()) - before) == 1


def _copied(small_run: Job, tmp_path) -> Job:
    """Return the run with a store of its own: a stage that failed would be found by other tests."""
    shutil.copytree(small_run.store.root, tmp_path / "store", ignore=shutil.ignore_patterns("mlflow*", "mlartifacts"))
    return dataclasses.replace(small_run, store=Store(tmp_path / "store"))


def _job(path, small_run: Job, *assignments: str) -> Job:
    return prepare(
        path, scale="tiny", assignments=list(assignments), resources=small_run.resources, store=small_run.store
    )
