"""Weak-to-strong search: a brute-force reference gives the same tokens, and with nothing to choose it is sampling."""

import random
from pathlib import Path
from typing import Literal
from unittest.mock import ANY

import pytest
import spoken
from searching import (
    DRAWN,
    FAMILIES,
    MOST,
    PROMPT_TEXTS,
    SHAPE,
    Reference,
    all_tokens,
    assert_equal_rows,
    by_id,
    make_models,
    prompt_rows,
    search,
    stage,
)
from toy import INLINE
from transformers import AutoTokenizer

from cong.data.formatting import ResponseTokens, prompt_tokens
from cong.generation import Sampling
from cong.generation.decode import DecodeJob, Decoder
from cong.generation.stages import decoding_settings
from cong.scoring.scorers import LogprobScorer
from cong.search.beams import Beam, best, distinct
from cong.search.worker import PROPOSED


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("one tokenizer", (2, 2, 3)),
        ("one tokenizer", (1, 2, 4)),
        ("a weak pair of longer tokens", (2, 2, 1)),
        ("a weak pair of longer tokens", (2, 2, None)),
        ("a strong model of longer tokens", (3, 2, 2)),
    ],
    ids=str,
)
def test_tokens_equal_those_of_a_brute_force_search(models, tmp_path, family, shape):
    searching = stage(models, **FAMILIES[family], **dict(zip(SHAPE, shape, strict=True)))
    found = by_id(search(searching, tmp_path))
    reference = Reference(models, searching, **FAMILIES[family])
    assert len(found) == len(PROMPT_TEXTS)
    waited = 0
    for row in prompt_rows():
        tokens, ended, reward = reference.response(row)
        mine = found[f"{row['prompt_id']}#0"]
        assert all_tokens(mine) == tokens
        assert mine["finish_reason"] == ended
        assert mine["implicit_reward"] == pytest.approx(reward, abs=1e-3)
        waited += sum(len({one[1] is None for one in kept}) == 2 for kept in reference.kept)
    # Ended beams and such as go on have stood side by side.
    assert waited or shape != (2, 2, 3)


def beam(*tokens: int, reward: float, ended: Literal["stop", "length"] | None = None) -> Beam:
    return Beam(tokens=tokens, ended=ended, reward=reward)


def test_beams_that_ended_compete_once_as_they_are_and_of_equal_ones_the_first_is_kept():
    ended, worse = beam(1, 9, reward=2.0, ended="stop"), beam(1, 8, reward=0.5, ended="stop")
    going = [beam(1, 2, 3, reward=1.0), beam(1, 2, 4, reward=3.0), beam(1, 2, 3, reward=1.0)]
    assert best(distinct([ended, worse, *going]), width=2) == [going[1], ended]
    assert best(distinct([ended, worse, *going]), width=4) == [going[1], ended, going[0], worse]
    same = [beam(number, reward=1.0) for number in (5, 3, 4)]
    assert best(same, width=2) == same[:2]


@pytest.mark.parametrize(
    ("chunk", "sampling"),
    [
        (1, DRAWN),
        (3, Sampling(temperature=1.2, top_p=0.9, repetition_penalty=1.3)),
        (5, Sampling(temperature=0.0)),
        (None, DRAWN),
    ],
    ids=str,
)
def test_one_beam_with_one_expansion_is_plain_sampling_whatever_the_chunk(models, tmp_path, chunk, sampling):
    searching = stage(models, beams=1, expansions=1, chunk=chunk, sampling=sampling)
    rows = prompt_rows([f"say {number}" for number in range(30)])
    settings = decoding_settings(sampling, max_new_tokens=MOST)
    plain = Decoder(DecodeJob(post=models / "strong", settings=settings, resources=INLINE))
    expected = by_id(list(plain.process(searching.rows(rows))))
    found = by_id(search(searching, tmp_path, rows=rows))
    assert found.keys() == expected.keys()
    assert {row["finish_reason"] for row in expected.values()} == {"stop", "length"}
    for name, row in found.items():
        assert row.pop(PROPOSED) == row["num_tokens"]
        own = {"logprob_post": pytest.approx(expected[name]["logprob_post"], abs=1e-4), "implicit_reward": ANY}
        assert row == expected[name] | own


def test_the_reward_of_a_search_is_that_of_a_score_of_its_response(models, tmp_path):
    for family in FAMILIES.values():
        rows = search(stage(models, **family), tmp_path)
        scorer = LogprobScorer(tuple(models / name for name in family["pair"]), INLINE)
        scores = {row["row_id"]: row["reward"] for row in scorer.process(rows)}
        assert {row["row_id"]: row["implicit_reward"] for row in rows} == pytest.approx(scores, abs=1e-3)


def test_neither_slots_nor_the_order_of_prompts_nor_prompts_beside_it_change_a_row(models, tmp_path):
    searching = stage(models, **FAMILIES["a strong model of longer tokens"])
    rows = prompt_rows([f"what is {number}" for number in range(20)])
    whole = by_id(search(searching, tmp_path, rows=rows, slots=64))
    mixed = random.Random(0).sample(rows, 20)
    for others, slots in ((mixed, 1), (mixed, 7), (mixed[:3], 64)):
        found = search(searching, tmp_path, rows=others, slots=slots)
        assert_equal_rows(found, [whole[row["row_id"]] for row in found])


def test_the_reward_rises_with_the_continuations_and_with_their_choice_in_chunks(models, tmp_path):
    rows = prompt_rows([f"tell me {number}" for number in range(24)])

    def mean(beams: int, expansions: int, chunk: int | None) -> float:
        found = search(stage(models, beams=beams, expansions=expansions, chunk=chunk), tmp_path, rows=rows, slots=64)
        return sum(row["implicit_reward"] for row in found) / len(found)

    best_of = [mean(1, n, None) for n in (1, 2, 4)]
    assert best_of == sorted(best_of)
    in_chunks = [best_of[0], mean(1, 2, 3), mean(1, 4, 3)]
    assert in_chunks == sorted(in_chunks)
    # With as many continuations at a time, and a choice at every chunk.
    assert in_chunks[2] > best_of[2]
    assert mean(2, 4, 3) > best_of[2]


def test_rows_end_at_the_limit_of_tokens_and_where_the_positions_end(models, tmp_path):
    assert {row["finish_reason"] for row in search(stage(models), tmp_path)} == {"stop", "length"}
    tokenizer = AutoTokenizer.from_pretrained(models / "strong")
    # Of four rows in turn one has room for whole chunks only.
    texts = ["x" * length for length in (90, 91, 92, 93)]
    rows = search(stage(models, chunk=4, max_new_tokens=40), tmp_path, rows=prompt_rows(texts))
    for row in rows:
        assert row["error"] is None
        room = 128 - len(prompt_tokens(tokenizer, row))
        assert row["num_tokens"] <= room
        assert row["finish_reason"] == "stop" or row["num_tokens"] == room
    assert "length" in {row["finish_reason"] for row in rows}


def test_a_row_that_cannot_be_searched_keeps_its_error_and_the_others_are_searched(models, tmp_path):
    texts = ["good", "x" * 200, "\ud83d", "fine"]
    rows = by_id(search(stage(models), tmp_path, rows=prompt_rows(texts)))
    assert {name for name, row in rows.items() if row["error"] is None} == {"p0#0", "p3#0"}
    assert "at most 127 leave room" in rows["p1#0"]["error"]
    assert "cannot be formatted" in rows["p2#0"]["error"]
    assert all(rows[name]["implicit_reward"] is None for name in ("p1#0", "p2#0"))
    alone = by_id(search(stage(models), tmp_path, rows=prompt_rows(["good"])))
    assert rows["p0#0"]["response"] == alone["p0#0"]["response"]


def test_what_the_weak_pair_has_no_positions_for_cannot_be_searched(models, tmp_path):
    for seed, name in enumerate(("post", "pre")):
        spoken.checkpoint(tmp_path / name, seed=seed, max_position_embeddings=32)
    paths = (str(tmp_path / "post"), str(tmp_path / "pre"))
    rows = by_id(search(stage(models, pair=paths), tmp_path, rows=prompt_rows(["x" * 40, "y"])))
    assert "the model has positions for 32" in rows["p0#0"]["error"]
    assert rows["p1#0"]["error"] is None or "positions for 32" in rows["p1#0"]["error"]


def test_a_response_that_goes_on_within_a_character_is_text_up_to_there():
    tokens = ResponseTokens(spoken.byte_tokenizer(), stop_ids=frozenset())
    row = {"response": "ab\N{REPLACEMENT CHARACTER}", "response_token_ids": None, "finish_reason": None}
    assert tokens.of(row) == tokens.of(row | {"response": "ab"})
