"""Proxy tuning on the slot engine and on `generate`, against a plain loop over three models written here."""

import dataclasses
import math
from functools import cache
from typing import Any

import numpy
import pytest
import torch
from reference_decoding import STOP_IDS, ragged_prompts, tiny_model

from cong.decoding import Decoding, GenerateEngine, Request, SlotEngine, proxy_scores
from cong.decoding.bands import Band

VOCABULARIES = {"anchor": 104, "post": 97, "pre": 112}
"""Padded to three sizes, as those of Qwen2.5 are to two."""
ENGINES = {
    "slots": lambda **parts: SlotEngine(**parts, slots=5),
    "generate": lambda **parts: GenerateEngine(**parts, batch_size=4),
}


@cache
def three_models(family: str, **sizes: int) -> dict[str, Any]:
    """An anchor that is larger than the pair, and a pair of which one model is the other with some noise."""
    sizes = {**VOCABULARIES, **sizes}
    anchor = tiny_model(family, seed=3, vocab_size=sizes["anchor"], hidden_size=48, num_hidden_layers=3)
    post, pre = (tiny_model(family, seed=0, vocab_size=sizes[role]) for role in ("post", "pre"))
    torch.manual_seed(1)
    for weight, start in zip(post.parameters(), pre.parameters(), strict=True):
        weight.copy_(start[: len(weight)] + 0.1 * torch.randn_like(weight))
    return {"anchor": anchor, "post": post, "pre": pre}


def requests_for(count: int, *, weights=(1.0, 0.0, 0.5, 2.0)) -> list[Request]:
    return [
        Request(row_id=f"r{i}", prompt_token_ids=prompt, weight=weights[i % len(weights)], seed=50 + i,
                max_new_tokens=4 + 7 * i % 15)
        for i, prompt in enumerate(ragged_prompts(count))
    ]  # fmt: skip


def decode(engine: str, models: dict[str, Any], requests: list[Request], **settings: Any) -> dict[str, Any]:
    decoding = Decoding(**{"max_new_tokens": 24, **settings})
    made = ENGINES[engine](**models, tokenizer=None, decoding=decoding)
    return {completion.row_id: completion for completion in made.decode(requests)}


@torch.no_grad()
def by_hand(models: dict[str, Any], request: Request, *, temperature: float = 0.0, penalty: float = 1.0):
    """Tokens and sums of log-probabilities by model: batch 1, no cache, nothing of the library but uniform numbers."""
    tokens, sums = list(request.prompt_token_ids), dict.fromkeys(models, 0.0)
    uniforms = numpy.random.Generator(numpy.random.Philox(key=request.seed)).random(64)
    shared = min(VOCABULARIES.values())
    for step in range(request.max_new_tokens or 0):
        ids = torch.tensor([tokens])
        logits = {role: model(input_ids=ids, use_cache=False).logits[0, -1] for role, model in models.items()}
        cut = {role: values[:shared] for role, values in logits.items()}
        scores = cut["anchor"] + request.weight * (cut["post"] - cut["pre"])
        for token in set(tokens):
            scores[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
        if temperature:
            cumulative = (scores / temperature).softmax(-1).double().cumsum(-1)
            choice = int((cumulative <= uniforms[step] * cumulative[-1]).sum())
        else:
            choice = int(scores.argmax())
        tokens.append(choice)
        for role, values in logits.items():
            sums[role] += values.log_softmax(-1)[choice].item()
        if choice in STOP_IDS:
            break
    return tokens[len(request.prompt_token_ids) :], sums


def assert_equals(completion: Any, expected: tuple[list[int], dict[str, float]]) -> None:
    tokens, sums = expected
    stopped = tokens[-1] in STOP_IDS
    assert completion.token_ids == tuple(tokens[:-1] if stopped else tokens)
    assert completion.finish_reason == ("stop" if stopped else "length")
    for role, value in sums.items():
        assert getattr(completion, f"logprob_{role}") == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9}, {"repetition_penalty": 1.2}], ids=lambda one: str(one))
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_tokens_and_log_probabilities_equal_a_plain_loop_over_three_models(family, engine, sampling):
    models, requests = three_models(family), requests_for(14)
    found = decode(engine, models, requests, **sampling)
    by_loop = {"temperature": sampling.get("temperature", 0.0), "penalty": sampling.get("repetition_penalty", 1.0)}
    for request in requests:
        assert_equals(found[request.row_id], by_hand(models, request, **by_loop))


def test_the_rows_of_the_plain_loop_tell_weights_apart_and_end_in_many_ways():
    models, requests = three_models("qwen2"), requests_for(14)
    plain = [dataclasses.replace(request, weight=0.0) for request in requests]
    tokens, untuned = ([by_hand(models, one)[0] for one in given] for given in (requests, plain))
    assert sum(one != other for one, other in zip(tokens, untuned, strict=True)) >= 5
    assert len({len(row) for row in tokens if row[-1] in STOP_IDS}) >= 2
    assert [row for row in tokens if row[-1] not in STOP_IDS]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "top_p": 0.95, "repetition_penalty": 1.2}], ids=str)
@pytest.mark.parametrize("engine", ENGINES)
def test_at_weight_0_it_is_plain_decoding_of_the_anchor(engine, sampling):
    # The plain engine must not choose an id that only the anchor has.
    models, requests = three_models("qwen2", anchor=97), requests_for(10, weights=(0.0,))
    tuned = decode(engine, models, requests, **sampling)
    plain = decode(engine, {"post": models["anchor"]}, requests, **sampling)
    assert {row_id: one.token_ids for row_id, one in tuned.items()} == {i: one.token_ids for i, one in plain.items()}
    for row_id, completion in tuned.items():
        assert completion.logprob_anchor == pytest.approx(plain[row_id].logprob_post, abs=1e-4)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "top_p": 0.95}], ids=str)
@pytest.mark.parametrize("engine", ENGINES)
def test_with_pi_ref_as_the_anchor_and_weight_1_it_is_plain_decoding_of_pi_r(engine, sampling):
    models, requests = three_models("llama", pre=97), requests_for(10, weights=(1.0,))
    pair = {**models, "anchor": models["pre"]}
    tuned, plain = (decode(engine, given, requests, **sampling) for given in (pair, {"post": models["post"]}))
    assert {row_id: one.token_ids for row_id, one in tuned.items()} == {i: one.token_ids for i, one in plain.items()}
    for row_id, completion in tuned.items():
        assert completion.logprob_post == pytest.approx(plain[row_id].logprob_post, abs=1e-4)


def test_both_backends_agree_on_top_p_and_min_p():
    models, requests = three_models("qwen2"), requests_for(12)
    settings = {"temperature": 0.8, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.1}
    slots, generate = (decode(engine, models, requests, **settings) for engine in ENGINES)
    for row_id, completion in slots.items():
        assert completion.token_ids == generate[row_id].token_ids
        for role in models:
            name = f"logprob_{role}"
            assert getattr(completion, name) == pytest.approx(getattr(generate[row_id], name), abs=1e-4)


def test_scores_are_the_anchors_logits_plus_the_weighted_difference_per_row():
    anchor, post, pre = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    scores = proxy_scores(anchor, post, pre, weight=torch.tensor([0.5, -2.0]))
    expected = [[anchor[row, token].item() + weight * (post[row, token].item() - pre[row, token].item())
                 for token in range(5)] for row, weight in enumerate((0.5, -2.0))]  # fmt: skip
    assert scores.dtype == torch.float32
    assert scores.tolist() == [pytest.approx(row, abs=1e-6) for row in expected]
    post[0, 1] = pre[0, 1] = pre[1, 2] = -math.inf
    assert not proxy_scores(anchor, post, pre, weight=0.0).isnan().any()
    assert proxy_scores(anchor, post, pre, weight=0.0).equal(anchor.float())


def test_a_weight_that_is_no_number_is_an_error_of_its_row_alone():
    requests = requests_for(3)
    requests[1] = dataclasses.replace(requests[1], weight=math.nan)
    for engine in ENGINES:
        found = decode(engine, three_models("qwen2"), requests)
        assert [found[f"r{i}"].finish_reason == "error" for i in range(3)] == [False, True, False]
        assert found["r1"].error == "weight nan is not finite"


def test_an_anchor_without_a_pair_is_refused():
    models = three_models("qwen2")
    for engine in ENGINES:
        with pytest.raises(ValueError, match="needs `pre`"):
            decode(engine, {"anchor": models["anchor"], "post": models["post"]}, [])


def test_a_step_of_three_models_asks_nothing_back_from_the_device():
    with torch.device("meta"):
        models = {role: tiny_model("qwen2", seed=0, vocab_size=size) for role, size in VOCABULARIES.items()}
    decoding = Decoding(max_new_tokens=8, temperature=0.8, repetition_penalty=1.2, top_p=0.9)
    engine = SlotEngine(**models, tokenizer=None, decoding=decoding, slots=4)
    with torch.inference_mode():
        engine._step([Band(rows=4, columns=16)])
