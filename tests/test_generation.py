"""Decoding, scoring and pairing as stages, on the small world's models."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import small
from toy import INLINE, Waiting

from cong import methods
from cong.data import PAIRS, RESPONSES, SCORES, by_prompt, check_prompts, read_rows, row_seed, write_rows
from cong.data.map_rows import map_rows
from cong.data.prompts import LocalFile, PromptFile
from cong.errors import UserError
from cong.generation import ContrastiveGenerate, Generate
from cong.graph.plan import make_plan
from cong.graph.resources import Resources
from cong.graph.runner import Runner
from cong.graph.stage import Context, topological
from cong.graph.store import Store
from cong.models import HubModel, LocalModel
from cong.run.job import Job
from cong.scales import scale
from cong.scoring import BestAgainstWorst, PreferencePairs, Score


def stages_of(job: Job, kind: type) -> list:
    return [stage for stage in job.plan.stages if isinstance(stage, kind)]


def responses(store: Store, stage) -> list[dict]:
    return read_rows(store.directory(stage) / RESPONSES)


def test_contrastive_responses_carry_their_log_probabilities(small_run):
    stage = stages_of(small_run, ContrastiveGenerate)[0]
    rows = responses(small_run.store, stage)
    assert len({row["row_id"] for row in rows}) == len(rows) == 48
    for row in rows:
        assert row["implicit_reward"] == pytest.approx(row["logprob_post"] - row["logprob_pre"])
        assert row["error"] is None
        assert row["num_tokens"] == len(row["response_token_ids"]) + (row["finish_reason"] == "stop")


def test_the_implicit_reward_of_decoding_equals_a_teacher_forced_pass(small_run):
    t = _transition()
    decoded = t.contrast(t.prompts, alpha=0.4)
    score = Score(responses=decoded, judge=t.implicit)
    Runner(store=small_run.store, resources=INLINE).run(make_plan({"a": score}, small_run.store))
    scored = by_prompt(read_rows(small_run.store.directory(score) / SCORES))
    for row in responses(small_run.store, decoded):
        assert scored[row["prompt_id"]]["reward"] == pytest.approx(row["implicit_reward"], abs=1e-3)


@pytest.mark.parametrize(
    "resources",
    [
        Resources(name="narrow").changed(ray=False, actors=0, slots=3),
        Resources(name="actors").changed(actors=2, slots=5, cpus=2),
    ],
    ids=["three slots", "two Ray Data actors"],
)
def test_batch_size_and_actors_change_no_text(small_run, resources, tmp_path, ray_of_two_cpus):
    store = _copy(small_run.store, tmp_path)
    sampled = [stage for stage in stages_of(small_run, Generate) if stage.samples == 5]
    decoders = [*stages_of(small_run, ContrastiveGenerate), *sampled]
    before = [_texts(store, stage) for stage in decoders]
    plan = make_plan({stage.slug: stage for stage in decoders}, store, force=tuple(stage.slug for stage in decoders))
    Runner(store=store, resources=resources).run(plan)
    assert [_texts(store, stage) for stage in decoders] == before


def test_decoding_goes_on_at_the_rows_that_are_missing(small_run, tmp_path):
    store = _copy(small_run.store, tmp_path)
    stage = stages_of(small_run, ContrastiveGenerate)[0]
    directory, rows = store.directory(stage), responses(store, stage)
    (directory / "_SUCCESS").unlink()
    (directory / RESPONSES).unlink()
    (directory / ".scratch" / "parts").mkdir(parents=True)
    write_rows(directory / ".scratch" / "parts" / "part-30-999-a.parquet", rows[:30])
    Runner(store=store, resources=INLINE).run(make_plan({"a": stage}, store))
    assert store.record(stage)["results"]["rows_from_earlier_runs"] == 30
    assert _texts(store, stage) == [(row["row_id"], row["response"], row["response_token_ids"]) for row in rows]


def test_a_part_that_cannot_be_read_is_set_aside_and_its_rows_are_decoded_again(small_run, tmp_path):
    store = _copy(small_run.store, tmp_path)
    stage = stages_of(small_run, ContrastiveGenerate)[0]
    before = _texts(store, stage)
    directory = store.directory(stage)
    (directory / "_SUCCESS").unlink()
    (directory / RESPONSES).unlink()
    (directory / ".scratch" / "parts").mkdir(parents=True)
    (directory / ".scratch" / "parts" / "part-3-9-a.parquet").write_bytes(b"PAR1 half")
    Runner(store=store, resources=INLINE).run(make_plan({"a": stage}, store))
    assert _texts(store, stage) == before


def test_both_backends_give_the_same_text(small_run, tmp_path):
    store = _copy(small_run.store, tmp_path)
    stage = stages_of(small_run, ContrastiveGenerate)[0]
    before = _texts(store, stage)
    plan = make_plan({"a": stage}, store, force=("ContrastiveGenerate",))
    Runner(store=store, resources=Resources(name="t").changed(ray=False, actors=0, backend="transformers")).run(plan)
    assert _texts(store, stage) == before


def test_greedy_decoding_shares_one_stage_among_seeds():
    one, other = (
        methods.transition("qwen", weak="3B", strong="7B", scale=scale("paper"), seed=seed) for seed in (0, 1)
    )
    assert one.respond(one.weak) == other.respond(other.weak)
    assert one.weak_aligned != other.weak_aligned


def test_samples_of_a_prompt_differ_and_each_has_its_own_seed(small_run):
    stage = next(stage for stage in stages_of(small_run, Generate) if stage.samples == 5)
    rows = responses(small_run.store, stage)
    assert len({row["row_id"] for row in rows}) == 5 * 48
    assert len({row["response"] for row in rows if row["prompt_id"] == rows[0]["prompt_id"]}) > 1
    assert len({row_seed(seed=0, prompt_id="a", sample=sample) for sample in range(100)}) == 100


def test_best_against_worst_are_the_extremes_of_every_prompt(small_run):
    stage = stages_of(small_run, BestAgainstWorst)[0]
    scores: dict[str, list[float]] = {}
    for row in read_rows(small_run.store.directory(stage.scored) / SCORES):
        scores.setdefault(row["prompt_id"], []).append(row["reward"])
    pairs = read_rows(small_run.store.directory(stage) / PAIRS)
    for pair in pairs:
        rewards = scores[pair["prompt_id"]]
        assert (pair["chosen_reward"], pair["rejected_reward"]) == (max(rewards), min(rewards))
    results = small_run.store.record(stage)["results"]
    assert results["pairs"] + results["dropped_identical"] + results["dropped_tied"] == len(scores)


def test_pairs_are_joined_by_prompt_id_and_equal_texts_are_dropped(tmp_path):
    chosen, rejected = PromptFile(file=LocalFile(path=__file__)), PromptFile(file=LocalFile(path=small.__file__))
    sides = {"chosen": [("a", "x"), ("b", "y"), ("c", "z")], "rejected": [("c", "z"), ("d", "u"), ("a", "w")]}
    for name, rows in sides.items():
        (tmp_path / name).mkdir()
        found = [{"prompt_id": i, "prompt": i.upper(), "response": text, "error": None} for i, text in rows]
        write_rows(tmp_path / name / RESPONSES, found)
    where = {chosen.fingerprint: tmp_path / "chosen", rejected.fingerprint: tmp_path / "rejected"}
    ctx = Context(out=tmp_path, root=tmp_path, resources=INLINE, locate=lambda stage: where[stage.fingerprint])
    PreferencePairs(chosen=chosen, rejected=rejected).run(ctx)
    assert read_rows(tmp_path / PAIRS) == [{"prompt_id": "a", "prompt": "A", "chosen": "x", "rejected": "w"}]
    assert ctx.results == {"pairs": 1, "dropped_identical": 1, "dropped_unmatched": 2}


class _Worker:
    def process(self, rows):
        for row in rows:
            error = "broken" if row["row_id"].startswith("bad") else None
            yield {**row, "num_tokens": 1, "error": error}


def test_failed_rows_are_kept_and_counted_and_too_many_stop_the_stage(tmp_path):
    rows = [{"row_id": f"good{n}"} for n in range(9)] + [{"row_id": "bad"}]
    ctx = Context(out=tmp_path, root=tmp_path, resources=INLINE, locate=lambda stage: tmp_path)
    finished = map_rows(ctx, _Worker, rows, max_error_share=0.1)
    assert finished[-1]["error"] == "broken"
    assert ctx.results["failed_rows"] == 1
    with pytest.raises(
        RuntimeError, match=r"1 of 10 rows failed, more than the 5.0% allowed; the first is bad: broken"
    ):
        map_rows(ctx, _Worker, rows, max_error_share=0.05)


def test_the_tokens_of_two_actors_are_added_up_while_their_rows_are_unfinished(tmp_path, ray_of_two_cpus):
    resources = Resources(name="two").changed(actors=2, slots=1)
    ctx = Context(out=tmp_path, root=tmp_path, resources=resources, locate=lambda stage: tmp_path)
    # Eight blocks: the first actor that is there would take two.
    rows = [{"row_id": str(number)} for number in range(64)]
    found = map_rows(ctx, partial(Waiting, ctx.progress_path, ((500, 1000),)), rows, max_error_share=0.0)
    assert {row["shown"]["tokens"] for row in found} == {1000}
    assert 0 in {row["shown"]["done"] for row in found}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no prompts"),
        ([{"prompt_id": "a", "prompt": " "}], "row 1 has no text"),
        ([{"prompt": "x"}], "row 1 has no 'prompt_id'"),
        ([{"prompt_id": "a", "prompt": "x"}] * 2, "prompt_id 'a' is not unique"),
    ],
)
def test_bad_prompts_are_named(rows, message):
    with pytest.raises(UserError, match=message):
        check_prompts(rows, source="prompts.jsonl")


def test_a_prompt_file_is_identified_by_its_content_and_not_by_its_place(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(json.dumps({"prompt_id": "a", "prompt": "hello"}))
    one, two = (PromptFile(file=LocalFile(path=str(tmp_path / name))) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert one.slug == two.slug


def test_a_checkpoint_is_identified_by_its_content_and_not_by_its_place(small_run, tmp_path):
    source = next(small_run.store.root.glob("Pretrain/*/model"))
    shutil.copytree(source, tmp_path / "moved")
    assert LocalModel(path=str(source)).identity() == LocalModel(path=str(tmp_path / "moved")).identity()


def test_a_hub_model_needs_a_commit():
    with pytest.raises(ValueError, match="is not a commit"):
        HubModel(repo="Qwen/Qwen2.5-3B-Instruct", revision="main")


def test_a_mirror_stands_for_the_hub(small_run, tmp_path, monkeypatch):
    from cong.models import hub_dir

    shutil.copytree(next(small_run.store.root.glob("Pretrain/*/model")), tmp_path / "org" / "name")
    monkeypatch.setenv("CONG_MIRROR", str(tmp_path))
    assert hub_dir("org/name", "0" * 40) == tmp_path / "org" / "name"
    with pytest.raises(UserError, match="is not a directory"):
        hub_dir("org/other", "0" * 40)


def test_a_reward_model_in_hugging_face_format_scores_conversations(small_run, tmp_path):
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from cong.scoring import RewardModel

    source = next(small_run.store.root.glob("Pretrain/*/model"))
    config = AutoConfig.from_pretrained(source, num_labels=1)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(tmp_path / "reward")
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.save_pretrained(tmp_path / "reward")
    decoded = stages_of(small_run, ContrastiveGenerate)[0]
    score = Score(responses=decoded, judge=RewardModel(model=LocalModel(path=str(tmp_path / "reward"))))
    Runner(store=small_run.store, resources=INLINE).run(make_plan({"a": score}, small_run.store))
    rows = read_rows(small_run.store.directory(score) / SCORES)
    chat = [{"role": "user", "content": rows[0]["prompt"]}, {"role": "assistant", "content": rows[0]["response"]}]
    tokens = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        expected = float(model.eval()(**tokens).logits)
    assert rows[0]["reward"] == pytest.approx(expected, abs=1e-5)
    assert len({row["reward"] for row in rows}) > 10


def _transition() -> methods.Transition:
    return methods.transition("qwen", weak="1.5B", strong="1.5B", scale=small.small_scale())


def _texts(store: Store, stage) -> list[tuple]:
    return [(row["row_id"], row["response"], row["response_token_ids"]) for row in responses(store, stage)]


def _copy(store: Store, target: Path) -> Store:
    shutil.copytree(store.root, target / "copy", ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    return Store(target / "copy")


def test_methods_share_the_stages_that_they_have_in_common(small_run):
    t = _transition()
    shared = set(topological([methods.cong(t, alpha=0.4, beta=0.5)])) & set(topological([methods.cong_s(t, alpha=0.4)]))
    assert methods.cong_s(t, alpha=0.4) in shared
    assert len(stages_of(small_run, Generate)) == len({stage.fingerprint for stage in stages_of(small_run, Generate)})
