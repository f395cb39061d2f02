"""Scoring gives what decoding gave, row by row; a row that cannot be scored is an error and no number."""

import math
from typing import Literal

import pytest
import spoken
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from cong.data import RESPONSES, SCORES, read_rows, write_rows
from cong.data.formatting import ResponseTokens
from cong.data.prompts import LocalFile, PromptFile
from cong.decoding import Completion, Decoding, Request, SlotEngine, load_model
from cong.decoding.types import finished_completion
from cong.errors import UserError
from cong.generation.decode import DecodeJob, Decoder
from cong.models import LocalModel
from cong.scoring import AnswerMatch, ImplicitReward, Likelihood, RewardModel, Score
from cong.scoring.classifiers import RewardScorer
from cong.scoring.scored import scored
from cong.scoring.scorers import LogprobScorer

SETTINGS = {"max_new_tokens": 24, "temperature": 1.5}
WITHOUT_TEMPLATE = spoken.byte_tokenizer(template=None)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """pi_r ends turns with <end>, its tokenizer's own end is <doc>; pi_ref has another template, `bare` has none."""
    directory = tmp_path_factory.mktemp("models")
    other = spoken.byte_tokenizer(template="<turn>system\nBe kind.<end>\n" + spoken.TEMPLATE, eos="<doc>")
    tokenizers = {"post": spoken.byte_tokenizer(eos="<doc>"), "pre": other, "bare": WITHOUT_TEMPLATE}
    for seed, (name, tokenizer) in enumerate(tokenizers.items()):
        spoken.checkpoint(directory / name, seed=seed, tokenizer=tokenizer)
    return directory


def decode(post, pre=None, *, count=40, backend: Literal["slots", "transformers"] = "slots"):
    resources = (
        spoken.INLINE
        if backend == "slots"
        else spoken.Resources(name="t").changed(ray=False, actors=0, backend=backend)
    )
    decoder = Decoder(DecodeJob(post=post, pre=pre, settings=SETTINGS, resources=resources))
    rows = [
        {"row_id": str(n), "prompt_id": str(n), "prompt": f"ask {n}", "sample": 0, "alpha": 0.3, "seed": n}
        for n in range(count)
    ]
    return list(decoder.process(rows))


@pytest.mark.parametrize("backend", ["slots", "transformers"])
@pytest.mark.parametrize("pre", ["pre", "bare"])
def test_an_implicit_reward_is_that_of_decoding_whatever_ended_the_row(models, pre, backend):
    rows = decode(models / "post", models / pre, backend=backend)
    tokenizer = AutoTokenizer.from_pretrained(models / "post")
    ends = {row["stop_token_id"] for row in rows}
    assert {tokenizer.convert_tokens_to_ids("<end>"), tokenizer.convert_tokens_to_ids("<doc>"), None} == ends
    scorer = LogprobScorer((models / "post", models / pre), spoken.INLINE)
    by_id = {row["row_id"]: row["reward"] for row in scorer.process(rows)}
    for row in rows:
        assert by_id[row["row_id"]] == pytest.approx(row["implicit_reward"], abs=1e-3)


def test_tokens_that_a_text_would_not_give_again_are_scored_as_they_were_written(models):
    tokenizer = AutoTokenizer.from_pretrained(models / "post")
    tokens = ResponseTokens(tokenizer, stop_ids=frozenset([97, 99]))
    pad, end = tokenizer.convert_tokens_to_ids(["<pad>", "<end>"])
    written = {"response": "ab", "response_token_ids": [64, pad, 65], "finish_reason": "stop", "stop_token_id": end}
    assert tokens.of(written) == (64, pad, 65, end)
    assert tokens.of(written | {"response_token_ids": [1, 2]}) == (64, 65, end)
    assert tokens.of(written | {"response_token_ids": [64, 65, 5000]}) == (64, 65, end)
    assert tokens.of(written | {"finish_reason": "length", "stop_token_id": None}) == (64, pad, 65)
    assert tokens.of(written | {"stop_token_id": None}) == (64, pad, 65)


def test_a_row_of_an_earlier_version_ends_as_its_template_ends_a_turn(models):
    tokenizer = AutoTokenizer.from_pretrained(models / "post")
    tokens = ResponseTokens(tokenizer, stop_ids=frozenset(tokenizer.convert_tokens_to_ids(["<doc>", "<end>"])))
    row = {"response": "a", "response_token_ids": [64], "finish_reason": "stop"}
    assert tokenizer.eos_token == "<doc>"
    assert tokens.of(row) == (64, tokenizer.convert_tokens_to_ids("<end>"))


@pytest.mark.parametrize("judge", ["pair", "likelihood", "reward model"])
def test_rows_that_cannot_be_scored_are_errors_and_the_others_have_a_reward(models, tmp_path, judge):
    good = decode(models / "post", count=2)
    bad = [
        good[0] | {"row_id": "long", "prompt": "x" * 200},
        good[0] | {"row_id": "half", "prompt": "\ud83d"},
        good[0] | {"row_id": "failed", "error": "decoding failed"},
    ]
    if judge == "reward model":
        scorer = RewardScorer(reward_model(tmp_path, labels=1), spoken.INLINE)
    else:
        names = ("post", "pre") if judge == "pair" else ("post",)
        scorer = LogprobScorer(tuple(models / name for name in names), spoken.INLINE)
    rows = {row["row_id"]: row for row in scorer.process([good[0], *bad, good[1]])}
    assert {name for name, row in rows.items() if row["reward"] is None} == {"long", "half", "failed"}
    assert all(row["error"] for row in rows.values() if row["reward"] is None)
    assert all(math.isfinite(row["reward"]) for row in rows.values() if row["reward"] is not None)
    assert "positions for 128" in rows["long"]["error"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_an_error_of_its_row(models, value):
    row = decode(models / "post", count=1)[0]
    assert scored(row, value)["reward"] is None
    assert str(value) in scored(row, value)["error"]
    request = Request(row_id="a", prompt_token_ids=(1,))
    for sides in ({"logprob_post": value, "logprob_pre": -1.0}, {"logprob_post": -1.0, "logprob_pre": value}):
        ended = {"tokens": [5], "stop_token_ids": frozenset[int](), "stopped_by_string": False}
        completion: Completion = finished_completion(request, **ended, **sides, decoding=Decoding(max_new_tokens=1))
        assert completion.finish_reason == "error"
        assert str(value) in str(completion.error)


def test_one_broken_embedding_fails_the_rows_that_meet_it(models, tmp_path):
    spoken.checkpoint(tmp_path / "broken", seed=0)
    path = tmp_path / "broken" / "model.safetensors"
    weights = load_file(path)
    weights["model.embed_tokens.weight"][ord("7") - 33] = math.nan
    save_file(weights, path, metadata={"format": "pt"})
    engine = SlotEngine(
        post=load_model(tmp_path / "broken", dtype="float32", device="cpu"),
        tokenizer=None, decoding=Decoding(max_new_tokens=1), slots=2,
    )  # fmt: skip
    requests = [Request(row_id=name, prompt_token_ids=(40, ord(name) - 33, 41)) for name in "6789"]
    assert {c.row_id: c.error is None for c in engine.decode(requests)} == {"6": True, "7": False, "8": True, "9": True}


def reward_model(directory, *, labels):
    spoken.checkpoint(directory)
    config = AutoConfig.from_pretrained(directory, num_labels=labels)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    (directory / "model.safetensors").unlink()
    model.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("labels", [2, 3])
def test_a_reward_model_with_several_labels_is_refused_unless_told_which(models, tmp_path, labels):
    path = reward_model(tmp_path, labels=labels)
    row = decode(models / "post", count=1)[0]
    with pytest.raises(UserError, match=rf"{labels} labels: say which"):
        RewardScorer(path, spoken.INLINE)
    with pytest.raises(UserError, match=f"{labels} labels, and none is number {labels}"):
        RewardScorer(path, spoken.INLINE, label=labels)
    rewards = [next(RewardScorer(path, spoken.INLINE, label=k).process([row]))["reward"] for k in range(labels)]
    assert len(set(rewards)) == labels
    assert None not in rewards
    told, untold = (RewardModel(model=LocalModel(path=str(path)), label=label) for label in (0, None))
    assert "label" not in untold.identity()
    assert told.identity() == untold.identity() | {"label": 0}


def test_a_score_reads_responses_of_an_earlier_version(models, tmp_path):
    responses = PromptFile(file=LocalFile(path=__file__))
    rows = decode(models / "post", models / "pre", count=6)
    (tmp_path / "given").mkdir()
    (tmp_path / "scored").mkdir()
    old = [{name: value for name, value in row.items() if name != "stop_token_id"} for row in rows]
    write_rows(tmp_path / "given" / RESPONSES, old)
    pair = {"post": LocalModel(path=str(models / "post")), "pre": LocalModel(path=str(models / "pre"))}
    for judge in (ImplicitReward(**pair), Likelihood(model=pair["post"])):
        score = Score(responses=responses, judge=judge)
        score.run(spoken.context(tmp_path / "scored", {responses: tmp_path / "given"}))
        assert all(math.isfinite(row["reward"]) for row in read_rows(tmp_path / "scored" / SCORES))


def test_a_prompt_without_a_reference_is_an_error_of_its_row(models):
    row = decode(models / "post", count=1)[0]
    rows = [row, row | {"reference": "4", "response": "#### 4"}]
    without, with_one = AnswerMatch().score(spoken.context(models, {}), rows, max_error_share=1.0)
    assert "no reference" in without["error"]
    assert with_one["reward"] == 1.0


def test_models_of_two_vocabularies_are_not_compared(models, tmp_path, monkeypatch):
    monkeypatch.setattr(spoken, "SPECIAL", ("<doc>", "<pad>", "<turn>", "<end>"))
    spoken.checkpoint(tmp_path)
    with pytest.raises(ValueError, match="does not share a vocabulary"):
        LogprobScorer((models / "post", tmp_path), spoken.INLINE)
