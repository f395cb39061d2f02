"""WSPO: the loss by hand, its gradient, the frozen log-probabilities, and which tokenizers can be matched."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from test_training_orpo import check_every_field_enters
from test_training_tiny import losses, make_model, make_responses, run, summary

from cong.data import read_rows, write_rows
from cong.errors import UserError
from cong.models import LocalModel
from cong.training import WSPO, ResponseLogprobs
from cong.training.rows import completion_rows
from cong.training.wspo import LOGPROBS, Scored, read_logprobs, wspo_loss


def wspo(tmp_path: Path, *, rows: int = 40, **fields) -> WSPO:
    """Return a WSPO whose weak pair differs by its random weights; the weak model is wider where it is given."""
    data = make_responses(tmp_path / "responses", rows=rows)
    models = {"model": make_model(tmp_path / "model"), "pre": make_model(tmp_path / "pre", hidden=16, seed=1)}
    post = make_model(tmp_path / "post", hidden=16, seed=2)
    given = {**models, "post": post, "data": data, "beta": 0.5, "learning_rate": 5e-3, "global_batch_size": 8}
    return WSPO(**{**given, **fields})


def make_other_tokenizer(directory: Path, *, seed: int) -> LocalModel:
    """Write a model that reads the same text in other tokens, mostly single letters."""
    from transformers import AutoTokenizer

    model = make_model(directory, hidden=16, seed=seed)
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    tokenizer.train_new_from_iterator(["xy"], vocab_size=260).save_pretrained(model.path)
    return model


def frozen(stage: WSPO, root: Path) -> list[dict[tuple[str, int], Scored]]:
    """Return the stored log-probabilities of the strong model and of the weak pair, after and before."""
    stages = (stage.strong_logprobs, stage.post_logprobs, stage.pre_logprobs)
    return [read_logprobs(root / item.name / item.slug / LOGPROBS) for item in stages]


def test_the_loss_of_two_responses_is_computed_by_hand() -> None:
    import torch

    policy, reference = torch.tensor([[-1.0, -2.0, 9.0], [-1.0, -1.0, -1.0]]), torch.zeros(2, 3)
    weak_ratio = torch.tensor([[0.5, -1.0, 0.0], [0.0, 1.0, 2.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    found = wspo_loss(policy=policy, reference=reference, weak_ratio=weak_ratio, mask=mask, beta=0.5)
    # Row 1: (-0.5 - 0.5)^2 and (-1 + 1)^2 over two tokens. Row 2: 0.5^2, 1.5^2 and 2.5^2 over three.
    assert found.tolist() == pytest.approx([0.5, 8.75 / 3], abs=1e-6)


def test_the_loss_and_its_gradient_are_zero_where_the_ratios_agree() -> None:
    import torch

    made = torch.Generator().manual_seed(0)
    reference, weak_ratio = (torch.randn(3, 5, generator=made, dtype=torch.float64) for _ in range(2))
    policy = (reference + weak_ratio / 0.3).requires_grad_()
    mask = torch.ones(3, 5, dtype=torch.bool)
    loss = wspo_loss(policy=policy, reference=reference, weak_ratio=weak_ratio, mask=mask, beta=0.3).sum()
    (gradient,) = torch.autograd.grad(loss, policy)
    assert loss.item() == pytest.approx(0.0, abs=1e-24)
    assert gradient.abs().max().item() == pytest.approx(0.0, abs=1e-14)


def test_the_gradient_with_respect_to_the_logits_matches_finite_differences() -> None:
    import torch

    made = torch.Generator().manual_seed(0)
    logits, frozen_logits = (torch.randn(2, 4, 6, generator=made, dtype=torch.float64) for _ in range(2))
    tokens = torch.randint(6, (2, 4, 1), generator=made)
    weak_ratio = torch.randn(2, 4, generator=made, dtype=torch.float64)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])

    def loss(values: torch.Tensor) -> torch.Tensor:
        policy, reference = (item.log_softmax(-1).gather(-1, tokens).squeeze(-1) for item in (values, frozen_logits))
        return wspo_loss(policy=policy, reference=reference, weak_ratio=weak_ratio, mask=mask, beta=0.7).mean()

    (gradient,) = torch.autograd.grad(loss(logits.requires_grad_()), logits)
    differences = torch.zeros_like(logits)
    for index in np.ndindex(*logits.shape):
        step = torch.zeros_like(logits)
        step[index] = 1e-6
        differences[index] = (loss(logits.detach() + step) - loss(logits.detach() - step)) / 2e-6
    assert gradient.abs().max() > 0.01
    assert torch.allclose(gradient, differences, rtol=0, atol=1e-8)


def test_stored_logprobs_are_those_of_the_response_under_the_full_logits(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stage = wspo(tmp_path, rows=9).pre_logprobs
    found = read_logprobs(run(stage, tmp_path / "store") / LOGPROBS)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "pre")
    rows = read_rows(tmp_path / "responses" / "responses.parquet")
    tokens = completion_rows(AutoTokenizer.from_pretrained(tmp_path / "pre"), rows, max_length=2048)
    assert len(found) == 9
    for row, ids, labels in zip(rows, tokens.columns["input_ids"], tokens.columns["labels"], strict=True):
        with torch.no_grad():
            logps = model(torch.tensor(ids.tolist())[None]).logits[0].log_softmax(-1)
        scored = [place for place in range(len(ids)) if labels[place] != -100]
        stored = found[row["prompt_id"], 0]
        assert stored.token_ids.tolist() == [ids[place] for place in scored]
        expected = [logps[place - 1, ids[place]].item() for place in scored]
        assert stored.logps.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("matching", ["tokens", "sequence"])
def test_the_first_step_has_the_loss_of_the_weak_ratio_alone(tmp_path: Path, matching: str) -> None:
    # The policy is still the reference, so that its own ratio is zero: log-probabilities and trainer must agree.
    stage = wspo(tmp_path, rows=8, matching=matching)
    first = losses(run(stage, tmp_path / "store", micro_tokens=40))[0]
    _, post, pre = frozen(stage, tmp_path / "store")
    ratios = [post[key].logps - pre[key].logps for key in post]
    each = [np.mean(row**2) if matching == "tokens" else np.sum(row) ** 2 for row in ratios]
    assert first == pytest.approx(float(np.mean(each)), rel=1e-4)
    assert first > 1e-3


def test_a_policy_that_has_reached_the_weak_ratio_has_nothing_to_learn(tmp_path: Path) -> None:
    # The policy is the weak pair's aligned model, its reference the other one, and beta 1: the ratios are one.
    stage = wspo(tmp_path, rows=8, beta=1.0)
    stage = dataclasses.replace(stage, model=stage.post)
    object.__setattr__(stage, "strong_logprobs", stage.pre_logprobs)
    assert losses(run(stage, tmp_path / "store")) == pytest.approx([0.0], abs=1e-9)


@pytest.mark.parametrize("matching", ["tokens", "sequence"])
def test_wspo_lowers_its_loss_and_other_micro_batches_change_none(tmp_path: Path, matching: str) -> None:
    stage = wspo(tmp_path, rows=21, epochs=6, matching=matching)
    small, large = (losses(run(stage, tmp_path / str(size), micro_tokens=16 * size)) for size in (2, 8))
    assert small == pytest.approx(large, rel=1e-4)
    assert sum(large[-3:]) < 0.6 * sum(large[:3])


def test_frozen_logprobs_are_shared_by_every_beta_and_learning_rate(tmp_path: Path) -> None:
    stage = wspo(tmp_path, rows=1)
    others = [
        dataclasses.replace(stage, **changed) for changed in ({"beta": 0.1}, {"learning_rate": 1e-5}, {"seed": 1})
    ]
    for name in ("strong_logprobs", "post_logprobs", "pre_logprobs"):
        made = [getattr(item, name) for item in (stage, *others)]
        assert len({item.fingerprint for item in made}) == 1
        assert made[0] in stage.inputs
    own = dataclasses.replace(stage, model=stage.pre)
    assert own.strong_logprobs.fingerprint == own.pre_logprobs.fingerprint == stage.pre_logprobs.fingerprint


def test_tokens_of_two_tokenizers_are_refused_with_the_reason_before_and_in_the_run(tmp_path: Path) -> None:
    weak = {"pre": make_other_tokenizer(tmp_path / "a", seed=1), "post": make_other_tokenizer(tmp_path / "b", seed=2)}
    stage = wspo(tmp_path, rows=4, **weak)
    reason = "do not cut the responses into the same tokens: use matching='sequence'"
    with pytest.raises(UserError, match=reason):
        stage.check()
    with pytest.raises(ValueError, match=reason):
        run(stage, tmp_path / "store")
    dataclasses.replace(stage, matching="sequence").check()
    wspo(tmp_path, rows=4).check()


def test_sums_are_matched_across_tokenizers(tmp_path: Path) -> None:
    weak = {"pre": make_other_tokenizer(tmp_path / "a", seed=1), "post": make_other_tokenizer(tmp_path / "b", seed=2)}
    stage = wspo(tmp_path, rows=16, epochs=20, matching="sequence", **weak)
    curve = losses(run(stage, tmp_path / "store"))
    strong, post, _ = frozen(stage, tmp_path / "store")
    assert all(len(post[key].logps) > len(strong[key].logps) for key in strong)
    assert sum(curve[-2:]) < 0.6 * sum(curve[:2])


def test_sums_leave_out_a_response_that_one_tokenizer_cuts_off(tmp_path: Path) -> None:
    weak = {"pre": make_other_tokenizer(tmp_path / "a", seed=1), "post": make_other_tokenizer(tmp_path / "b", seed=2)}
    stage = wspo(tmp_path, rows=16, max_length=64, matching="sequence", **weak)
    told = summary(run(stage, tmp_path / "store"))
    whole = [not item.at_limit for item in frozen(stage, tmp_path / "store")[1].values()]
    assert not any(item.at_limit for item in frozen(stage, tmp_path / "store")[0].values())
    assert 0 < told["rows"] == sum(whole) < 16
    assert told["rows_unmatched"] == 16 - told["rows"]


def test_samples_of_a_prompt_keep_their_own_logprobs(tmp_path: Path) -> None:
    stage = wspo(tmp_path, rows=8)
    path = tmp_path / "responses" / "responses.parquet"
    rows = [{**row, "prompt_id": "p", "prompt": "ban", "sample": number} for number, row in enumerate(read_rows(path))]
    rows[3] |= {"error": "out of memory", "response": None}
    write_rows(path, rows)
    told = summary(run(stage, tmp_path / "store"))
    assert (told["rows"], told["rows_unusable"]) == (7, 1)
    assert set(frozen(stage, tmp_path / "store")[0]) == {("p", number) for number in range(8) if number != 3}


def test_a_response_that_comes_twice_is_refused(tmp_path: Path) -> None:
    stage = wspo(tmp_path, rows=3)
    path = tmp_path / "responses" / "responses.parquet"
    write_rows(path, [{**row, "prompt_id": "p"} for row in read_rows(path)])
    with pytest.raises(ValueError, match="'p' comes twice"):
        run(stage.pre_logprobs, tmp_path / "store")


def test_every_field_of_wspo_and_of_its_logprobs_enters_the_fingerprint(tmp_path: Path) -> None:
    stage = wspo(tmp_path, rows=1)
    weak = {name: make_model(tmp_path / name, seed=9) for name in ("other_pre", "other_post")}
    given = {"pre": weak["other_pre"], "post": weak["other_post"]}
    check_every_field_enters(stage, tmp_path, beta=0.1, matching="sequence", **given)
    scored = stage.pre_logprobs
    assert {item.name for item in dataclasses.fields(ResponseLogprobs)} == {"model", "data", "max_length"}
    changed = [{"model": stage.post}, {"data": scored}, {"max_length": 9}]
    made = [scored, *(dataclasses.replace(scored, **one) for one in changed)]
    assert len({item.fingerprint for item in made}) == 4


@pytest.mark.parametrize(("field", "value"), [("beta", 0.0), ("matching", "words")])
def test_a_field_out_of_range_is_refused(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        wspo(tmp_path, rows=1, **{field: value})
