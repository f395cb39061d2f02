"""Distillation: the loss by hand and by finite differences, a teacher's top tokens, and a training that resumes."""

import dataclasses
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training_tiny import Given, losses, make_model, make_responses, run, summary
from test_training_wspo import make_other_tokenizer

from cong.data import read_rows
from cong.errors import UserError
from cong.models import LocalModel
from cong.training import Distil, TopLogprobs, parts, toplogprobs
from cong.training.distil import distillation_loss
from cong.training.rows import completion_rows
from cong.training.toplogprobs import TOPS, read_tops, top_logprobs


def padded(directory: Path, *, size: int, **given: Any) -> LocalModel:
    """Return a tiny model whose vocabulary is padded to a size."""
    from transformers import AutoModelForCausalLM

    made = make_model(directory, **given)
    model = AutoModelForCausalLM.from_pretrained(directory)
    model.resize_token_embeddings(size, mean_resizing=False)
    model.save_pretrained(directory)
    return made


def teacher(tmp_path: Path, *, data: Given, **fields: Any) -> TopLogprobs:
    """Return the pass of a strong model and a weak pair of other widths and vocabularies."""
    models = {
        "model": make_model(tmp_path / "model"),
        "post": padded(tmp_path / "post", size=400, hidden=16, seed=1),
        "pre": padded(tmp_path / "pre", size=416, hidden=16, seed=2),
    }
    return TopLogprobs(**{**models, "data": data, "max_length": 64, "weight": 1.5, "k": 4, **fields})


def distil(tmp_path: Path, *, rows: int = 24, top: dict[str, Any] | None = None, **fields: Any) -> Distil:
    """Return the distillation of that teacher into the strong model."""
    read = teacher(tmp_path, data=make_responses(tmp_path / "responses", rows=rows), **(top or {}))
    given = {"model": read.model, "learning_rate": 5e-3, "global_batch_size": 8, "max_length": read.max_length}
    return Distil(**{**given, "data": read.data, "teacher": read, **fields})


def by_hand(logits: list[list[float]], tops: list[dict[int, float]]) -> list[float]:
    """The loss of every token from its formula, over lists: what a teacher keeps, and the rest as one event."""
    found = []
    for row, kept in zip(logits, tops, strict=True):
        total = sum(math.exp(one) for one in row)
        p = [math.exp(one) / total for one in row]
        loss = sum(p[token] * math.log(p[token] / q) for token, q in kept.items())
        rest, left = 1 - sum(p[token] for token in kept), 1 - sum(kept.values())
        found.append(loss + (rest * math.log(rest / left) if len(kept) < len(row) else 0.0))
    return found


def test_the_loss_of_a_batch_is_computed_by_hand() -> None:
    logits = [[0.0, 1.0, -1.0, 0.5], [2.0, 0.0, 0.0, -3.0]]
    tops = [{1: 0.5, 2: 0.25}, {3: 0.6, 0: 0.3}]
    found = distillation_loss(
        logits=torch.tensor(logits),
        top_ids=torch.tensor([list(row) for row in tops]),
        top_logps=torch.tensor([list(row.values()) for row in tops]).log(),
        tail_logps=torch.tensor([0.25, 0.1]).log(),
    )
    assert found.tolist() == pytest.approx(by_hand(logits, tops), abs=1e-6)
    assert all(one > 0 for one in found)


def test_with_the_whole_vocabulary_the_loss_is_the_kl_divergence() -> None:
    made = torch.Generator().manual_seed(0)
    student, other = torch.randn(2, 5, 7, generator=made, dtype=torch.float64)
    ids, logps, tail = top_logprobs([other], weight=1.0, k=99)
    found = distillation_loss(logits=student, top_ids=ids, top_logps=logps, tail_logps=tail)
    p, q = student.log_softmax(-1), other.log_softmax(-1)
    assert tail.tolist() == [-math.inf] * 5
    assert found.tolist() == pytest.approx((p.exp() * (p - q)).sum(-1).tolist(), abs=1e-6)


@pytest.mark.parametrize("k", [3, 7])
def test_loss_and_gradient_are_zero_where_the_student_is_the_teacher(k: int) -> None:
    logits = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    ids, logps, tail = top_logprobs([logits], weight=1.0, k=k)
    student = logits.clone().requires_grad_()
    loss = distillation_loss(logits=student, top_ids=ids, top_logps=logps, tail_logps=tail)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert loss.abs().max().item() == pytest.approx(0.0, abs=1e-7)
    assert gradient.abs().max().item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_the_gradient_matches_finite_differences(k: int) -> None:
    made = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, 4, 6, generator=made, dtype=torch.float64)
    order = other.log_softmax(-1).sort(dim=-1, descending=True)
    tail = order.values[:, k:].logsumexp(-1)
    told = {"top_ids": order.indices[:, :k], "top_logps": order.values[:, :k], "tail_logps": tail}

    def loss(values: torch.Tensor) -> torch.Tensor:
        return distillation_loss(logits=values, **told).sum()

    (gradient,) = torch.autograd.grad(loss(logits.requires_grad_()), logits)
    differences = torch.zeros_like(logits)
    for index in np.ndindex(*logits.shape):
        step = torch.zeros_like(logits)
        step[index] = 1e-6
        differences[index] = (loss(logits.detach() + step) - loss(logits.detach() - step)) / 2e-6
    assert gradient.abs().max() > 0.01
    assert torch.allclose(gradient, differences, rtol=0, atol=1e-8)


def test_no_student_gains_by_probability_that_it_moves_out_of_the_teachers_top_tokens() -> None:
    ids, logps, tail = top_logprobs([torch.tensor([[3.0, 2.0, 0.0, 0.0]])], weight=1.0, k=2)
    loss = partial(distillation_loss, top_ids=ids, top_logps=logps, tail_logps=tail)
    away = [loss(logits=torch.tensor([[3.0 - by, 2.0 - by, 0.0, 0.0]])).item() for by in (0.0, 1.0, 4.0, 20.0)]
    assert away == sorted(away)
    assert away[0] == pytest.approx(0.0, abs=1e-6)
    # A teacher that leaves nothing to other tokens is answered by a finite loss.
    assert math.isfinite(loss(logits=torch.zeros(1, 4), tail_logps=torch.tensor([-math.inf])).item())


@pytest.mark.parametrize("most", [1024, 60, 7], ids=["all", "a few rows", "in pieces"])
def test_stored_tops_are_those_of_a_plain_loop_over_the_three_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(toplogprobs, "MOST_TOKENS", most)
    stage = teacher(tmp_path, data=make_responses(tmp_path / "responses", rows=9))
    out = run(stage, tmp_path / "store")
    found = read_tops(out / TOPS)
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("model", "post", "pre")]
    rows = read_rows(tmp_path / "responses" / "responses.parquet")
    tokens = completion_rows(AutoTokenizer.from_pretrained(tmp_path / "model"), rows, max_length=64)
    shared = min(model.config.vocab_size for model in models)
    assert len({model.config.vocab_size for model in models}) == 3
    assert summary(out) == {"rows": 9, "tokens": 3 * sum(len(one.token_ids) for one in found.values())}
    for row, ids, labels in zip(rows, tokens.columns["input_ids"], tokens.columns["labels"], strict=True):
        with torch.no_grad():
            z, post, pre = (model(torch.tensor(ids.tolist())[None]).logits[0, :, :shared] for model in models)
        logps = (z + 1.5 * (post - pre)).log_softmax(-1)
        scored = [place for place in range(len(ids)) if labels[place] != -100]
        stored = found[row["prompt_id"], 0]
        assert stored.token_ids.tolist() == [ids[place] for place in scored]
        expected = [logps[place - 1].sort(descending=True) for place in scored]
        assert stored.top_ids.tolist() == [token for one in expected for token in one.indices[:4].tolist()]
        largest = [value for one in expected for value in one.values[:4].tolist()]
        assert stored.top_logps.tolist() == pytest.approx(largest, abs=1e-5)
        tails = [one.values[4:].logsumexp(-1).item() for one in expected]
        assert stored.tail_logps.tolist() == pytest.approx(tails, abs=1e-5)


def test_the_first_step_is_the_loss_of_the_unchanged_student(tmp_path: Path) -> None:
    stage = distil(tmp_path, rows=8, top={"weight": 6.0})
    first = losses(run(stage, tmp_path / "store", micro_tokens=40))[0]
    tops = read_tops(tmp_path / "store" / "TopLogprobs" / stage.teacher.slug / TOPS)
    alone = dataclasses.replace(stage.teacher, post=None, pre=None, k=9999)
    own = read_tops(run(alone, tmp_path / "store") / TOPS)
    expected = []
    for key, told in tops.items():
        size = len(own[key].top_ids) // len(told.token_ids)
        whole = zip(*(values.reshape(-1, size) for values in own[key][1:3]), strict=True)
        kept = zip(told.top_ids.reshape(-1, 4), np.exp(told.top_logps.reshape(-1, 4)), strict=True)
        logits = [logps[np.argsort(ids)].tolist() for ids, logps in whole]
        expected += by_hand(logits, [dict(zip(*pair, strict=True)) for pair in kept])
    assert first == pytest.approx(np.mean(expected), rel=1e-4)
    assert first > 1e-3


def test_a_student_that_is_its_teacher_has_nothing_to_learn(tmp_path: Path) -> None:
    stage = distil(tmp_path, rows=8, top={"post": None, "pre": None, "k": 999})
    assert losses(run(stage, tmp_path / "store")) == pytest.approx([0.0], abs=1e-6)
    assert distil(tmp_path, rows=8, top={"weight": 0.0}).teacher.label() == "k=4,weight=0"


def test_distillation_lowers_its_loss_and_other_micro_batches_change_none(tmp_path: Path) -> None:
    # The random models are near to uniform: a large weight makes a teacher of them that says something.
    stage = distil(tmp_path, rows=21, epochs=6, top={"weight": 30.0})
    small, large = (run(stage, tmp_path / str(size), micro_tokens=16 * size) for size in (2, 8))
    assert losses(small) == pytest.approx(losses(large), rel=1e-4, abs=1e-6)
    assert losses(large)[0] > 0.01
    assert losses(large)[-1] < 0.9 * losses(large)[0]
    points = [json.loads(line) for line in (large / "metrics.jsonl").read_text().splitlines()]
    assert points[-1]["teacher_agreement"] > points[0]["teacher_agreement"]


def test_a_pass_that_was_killed_reads_the_missing_parts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toplogprobs, "PART", 4)
    stage = teacher(tmp_path, data=make_responses(tmp_path / "responses", rows=10))
    undisturbed = run(stage, tmp_path / "undisturbed")
    write, made = parts.write_rows, list[Path]()

    def until(limit: int, path: Path, rows: list[dict]) -> None:
        if len(made) == limit:
            raise KeyboardInterrupt
        made.append(path)
        write(path, rows)

    monkeypatch.setattr(parts, "write_rows", partial(until, 2))
    with pytest.raises(KeyboardInterrupt):
        run(stage, tmp_path / "killed")
    monkeypatch.setattr(parts, "write_rows", partial(until, 99))
    killed = run(stage, tmp_path / "killed")
    assert [path.name for path in made] == ["0000000000.parquet", "0000000004.parquet", "0000000008.parquet"]
    one, other = (read_tops(out / TOPS) for out in (killed, undisturbed))
    assert {key: [part.tolist() for part in tops] for key, tops in one.items()} == {
        key: [part.tolist() for part in tops] for key, tops in other.items()
    }


def test_a_training_that_ended_before_its_model_was_saved_goes_on_at_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cong.training import loop

    stage = distil(tmp_path, rows=16, epochs=2)
    undisturbed = run(stage, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_model", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(stage, tmp_path / "ended", checkpoint_seconds=0.0)
    out = run(stage, tmp_path / "ended")
    assert summary(out)["resumed_at_step"] == 3
    assert losses(out) == losses(undisturbed)


def test_several_samples_of_a_prompt_and_rows_with_errors_keep_their_places(tmp_path: Path) -> None:
    from cong.data import write_rows

    stage = distil(tmp_path, rows=8)
    path = tmp_path / "responses" / "responses.parquet"
    rows = [{**row, "prompt_id": "p", "prompt": "ban", "sample": number} for number, row in enumerate(read_rows(path))]
    rows[3] |= {"error": "out of memory", "response": None}
    write_rows(path, rows)
    told = summary(run(stage, tmp_path / "store"))
    assert (told["rows"], told["rows_unusable"]) == (7, 1)


def test_two_tokenizers_are_refused_in_one_line_before_the_run_and_in_it(tmp_path: Path) -> None:
    other = make_other_tokenizer(tmp_path / "other", seed=1)
    pass_ = teacher(tmp_path, data=make_responses(tmp_path / "responses", rows=2), post=other, pre=other)
    with pytest.raises(UserError, match=r"^proxy tuning adds the logits .* have two tokenizers: choose models"):
        pass_.check()
    with pytest.raises(UserError, match="does not share a vocabulary"):
        run(pass_, tmp_path / "store")
    student = distil(tmp_path, rows=2, model=other)
    with pytest.raises(UserError, match=r"^distillation compares distributions token by token, .* two tokenizers$"):
        student.check()
    with pytest.raises(ValueError, match="into the tokens that are trained on"):
        run(student, tmp_path / "store")
    distil(tmp_path, rows=2).check()


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    stage = distil(tmp_path, rows=2)
    data = make_responses(tmp_path / "others", rows=2)
    for changed in ({"data": data}, {"max_length": 63}):
        with pytest.raises(ValueError, match=r"teacher"):
            dataclasses.replace(stage, **changed)
    for fields, message in (({"k": 0}, "k = 0"), ({"post": None}, "pair"), ({"weight": math.inf}, "weight = inf")):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(stage.teacher, **fields)


def test_every_field_enters_the_fingerprint(tmp_path: Path) -> None:
    stage = distil(tmp_path, rows=1)
    read = stage.teacher
    other = make_model(tmp_path / "third", seed=9)
    changed = [{"model": other}, {"post": other}, {"pre": other}, {"weight": 2.0}, {"k": 5}, {"max_length": 9},
               {"data": make_responses(tmp_path / "others", rows=2)}]  # fmt: skip
    made = [read, *(dataclasses.replace(read, **one) for one in changed)]
    assert {item.name for item in dataclasses.fields(read)} == {name for one in changed for name in one}
    assert len({item.fingerprint for item in made}) == len(made)
    assert read in stage.inputs
    assert len({dataclasses.replace(stage, teacher=one).fingerprint for one in made[:5]}) == 5
