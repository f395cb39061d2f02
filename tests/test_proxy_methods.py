"""Proxy tuning and distillation of it as stages and methods, on the small world's models."""

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import small
from toy import INLINE, run

from cong import methods
from cong.data import PROMPTS, RESPONSES, read_rows, write_rows
from cong.data.prompts import Share
from cong.errors import UserError
from cong.generation import ProxyGenerate
from cong.generation.backends import ANCHOR, backend_of, check_backend
from cong.generation.needs import decoding_need
from cong.graph.plan import make_plan
from cong.graph.resources import Resources
from cong.graph.runner import Runner
from cong.graph.stage import Stage, topological
from cong.graph.store import Store
from cong.models import LocalModel, largest
from cong.models.adapters import merge
from cong.scales import scale
from cong.training import Distil, LoRA, TopLogprobs


def between(strong: str = "1.5B", **given: Any) -> methods.Transition:
    made = small.small_scale()
    fast = dataclasses.replace(made, distil=dataclasses.replace(made.distil, learning_rate=3e-3, k=8))
    return methods.transition("qwen", weak="1.5B", strong=strong, scale=fast, **given)


def texts(store: Store, stage: Stage) -> list[tuple[str, list[int]]]:
    return [(row["row_id"], row["response_token_ids"]) for row in read_rows(store.directory(stage) / RESPONSES)]


def _directory(store: Store, model: Any) -> Path:
    return store.directory(model)


def copy(store: Store, target: Path) -> Store:
    shutil.copytree(store.root, target / "copy", ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    return Store(target / "copy")


def test_weight_0_is_the_strong_model_and_weight_1_on_pi_ref_is_the_aligned_weak_model(small_run):
    # In this transition the strong model is the weak one before its alignment.
    t = between()
    none, whole = (t.proxy(t.prompts, weight=weight) for weight in (0.0, 1.0))
    plain, aligned = t.respond(t.strong), t.respond(t.weak_aligned)
    run(small_run.store, none, whole, plain, aligned)
    assert texts(small_run.store, none) == texts(small_run.store, plain)
    assert texts(small_run.store, whole) == texts(small_run.store, aligned)
    assert texts(small_run.store, none) != texts(small_run.store, whole)
    columns = [read_rows(small_run.store.directory(stage) / RESPONSES) for stage in (whole, aligned, none, plain)]
    for row, other, tuned, untuned in zip(*columns, strict=True):
        assert row["implicit_reward"] == pytest.approx(row["logprob_post"] - row["logprob_pre"])
        assert row["logprob_post"] == pytest.approx(other["logprob_post"], abs=1e-3)
        assert tuned["logprob_anchor"] == pytest.approx(untuned["logprob_post"], abs=1e-3)
        assert row["alpha"] is None


def test_a_stage_goes_on_at_the_missing_rows_and_both_backends_give_one_text(small_run, tmp_path):
    store, t = copy(small_run.store, tmp_path), between()
    stage = t.proxy(t.prompts, weight=0.5)
    run(store, stage)
    before, rows = texts(store, stage), read_rows(store.directory(stage) / RESPONSES)
    directory = store.directory(stage)
    (directory / "_SUCCESS").unlink()
    (directory / RESPONSES).unlink()
    (directory / ".scratch" / "parts").mkdir(parents=True)
    write_rows(directory / ".scratch" / "parts" / "part-30-999-a.parquet", rows[:30])
    run(store, stage)
    assert store.record(stage)["results"]["rows_from_earlier_runs"] == 30
    assert texts(store, stage) == before
    plan = make_plan({"a": stage}, store, force=("ProxyGenerate",))
    Runner(store=store, resources=INLINE.changed(backend="transformers")).run(plan)
    assert texts(store, stage) == before


def test_an_adapter_of_the_weak_model_tunes_as_its_merged_weights_do(small_run, tmp_path):
    store, t = copy(small_run.store, tmp_path), between()
    adapter = dataclasses.replace(methods.dpo(t), lora=LoRA(rank=4), learning_rate=1e-2)
    stage = dataclasses.replace(t, aligned=adapter).proxy(t.heldout)
    run(store, stage, TopLogprobs(model=t.strong, post=adapter, pre=t.weak, data=stage, k=4, max_length=128))
    merged = tmp_path / "merged"
    merge(_directory(store, t.weak) / "model", store.directory(adapter) / "model", merged)
    whole = dataclasses.replace(stage, post=LocalModel(path=str(merged)))
    run(store, whole)
    assert texts(store, whole) == texts(store, stage)
    need = decoding_need(stage.models, new_tokens=8, resources=INLINE)
    three = decoding_need((t.strong, t.weak_aligned, t.weak), new_tokens=8, resources=INLINE)
    assert need is not None
    assert three is not None
    assert need.weights == pytest.approx(three.weights * 2 / 3)


def test_two_tokenizers_are_refused_before_anything_starts(tmp_path):
    across = methods.transition("llama", strong_family="qwen", weak="1.5B", strong="1.5B", scale=small.small_scale())
    for make in (methods.evaluate_proxy, methods.proxy_sft, methods.w2s_opd):
        with pytest.raises(UserError, match="have two tokenizers"):
            make(across)
    given = {"post": across.weak, "pre": across.weak, "prompts": across.prompts, "max_new_tokens": 4}
    with pytest.raises(UserError, match=r"^proxy tuning adds the logits .* have two tokenizers: choose models of one"):
        ProxyGenerate(anchor=across.strong, **given).check()


def test_vllm_is_refused_in_one_line_and_never_chosen(monkeypatch):
    monkeypatch.setattr("cong.generation.backends.vllm_installed", lambda: True)
    named, free = (Resources(name="gpu").changed(device="cuda", backend=backend) for backend in ("vllm", "auto"))
    t = between()
    with pytest.raises(UserError, match=ANCHOR):
        t.proxy(t.prompts).check_execution(named)
    t.proxy(t.prompts).check_execution(free)
    assert backend_of(free, anchor=True) == "slots"
    assert backend_of(free) == "vllm"
    check_backend(named)


@pytest.mark.parametrize(("field", "value"), [("weight", math.nan), ("weight", math.inf), ("max_new_tokens", 0)])
def test_a_field_out_of_range_is_refused(field, value):
    t = between()
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(t.proxy(t.prompts), **{field: value})


def test_shares_part_the_prompts_and_none_is_lost(small_run):
    t = between()
    shares = [Share(prompts=t.prompts, number=number, of=5) for number in range(5)]
    run(small_run.store, *shares)
    rows = [read_rows(small_run.store.directory(share) / PROMPTS) for share in shares]
    assert [len(part) for part in rows] == [share.row_count() for share in shares] == [10, 10, 10, 9, 9]
    every = read_rows(small_run.store.directory(t.prompts) / PROMPTS)
    assert sorted(row["prompt_id"] for part in rows for row in part) == sorted(row["prompt_id"] for row in every)
    for number, of in ((-1, 2), (2, 2), (0, 0)):
        with pytest.raises(ValueError, match="number"):
            Share(prompts=t.prompts, number=number, of=of)


def test_a_later_round_begins_with_the_student_of_the_one_before_under_the_same_teacher():
    t = between("3B")
    student = methods.w2s_opd(t, rounds=2)
    assert isinstance(student, Distil)
    assert isinstance(student.model, Distil)
    assert student.data.evaluated_model == student.model
    assert student.model.model == student.teacher.model == student.model.teacher.model == t.strong
    weak = methods.w2s_opd(t, anchor="weak")
    assert isinstance(weak, Distil)
    assert weak.teacher.model == t.weak


def test_rounds_weights_and_anchors_are_stages_of_their_own_and_share_what_they_can():
    t = between("3B")
    made = [methods.w2s_opd(t, rounds=2), methods.w2s_opd(t, rounds=3), methods.w2s_opd(t, weight=0.5),
            methods.w2s_opd(t, anchor="weak")]  # fmt: skip
    assert len({stage.fingerprint for stage in made if isinstance(stage, Stage)}) == 4
    first = [topological([stage]) for stage in made if isinstance(stage, Stage)]
    rollouts = [{one.fingerprint for one in stages if one.name == "Generate"} for stages in first]
    # The first round's rollouts are those of the strong model, whatever the teacher.
    assert rollouts[0] & rollouts[2] & rollouts[3]
    assert methods.w2s_opd(t, rounds=0) == t.strong
    assert methods.proxy_sft(t).data == t.proxy(t.prompts)


@pytest.mark.parametrize("name", ["tiny", "small", "paper"])
def test_every_scale_plans_memory_and_work_of_the_stages(name):
    made = scale(name)
    weak, strong = made.sizes["qwen"]
    t = methods.transition("qwen", weak=weak, strong=strong, scale=made)
    resources = Resources(name="gpu").changed(device="cuda", dtype="bfloat16", gpu_memory_gb=80)
    student = methods.w2s_opd(t)
    assert isinstance(student, Distil)
    stages = (t.proxy(t.prompts), student.teacher, student)
    for stage in stages:
        need, work = stage.memory(resources), stage.work(resources)
        assert need is not None
        assert need.total > 0
        assert work.gpu_seconds > 0
    assert stages[0].parameters() == stages[1].parameters() == largest(t.strong)
    assert (largest(t.strong) or 0) > (largest(t.weak) or 0)
