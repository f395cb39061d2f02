"""Conversations that a reward model reads together get the rewards that each gets alone."""

import math
import random
from typing import Any

import pytest
import spoken
import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    PreTrainedTokenizerFast,
    XLNetConfig,
)

from cong.graph.fingerprint import canonical
from cong.models import LocalModel, memory
from cong.models.architecture import read_architecture
from cong.scoring import RewardModel, classifiers
from cong.scoring.classifiers import Classifier, RewardScorer, batches
from cong.scoring.reading import Encoded

LENGTHS = (3, 90, 17, 1, 44, 44, 8, 126, 2, 61, 30)
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
BUCKETS: dict[str, Any] = {"position_buckets": 16, "share_att_key": True, "norm_rel_ebd": "layer_norm"}


def classifier(directory, *, kind="llama", **settings):
    """Write a random classifier beside a byte-level tokenizer."""
    spoken.checkpoint(directory)
    if kind == "llama":
        config = AutoConfig.from_pretrained(directory, num_labels=1)
    elif kind == "deberta":
        # As DeBERTa-v3: distances instead of positions, in logarithmic buckets beyond the nearest.
        config = DebertaV2Config(
            vocab_size=100, max_position_embeddings=128, relative_attention=True, position_biased_input=False,
            pos_att_type=["p2c", "c2p"], type_vocab_size=0, **SMALL, **BUCKETS
        )  # fmt: skip
    elif kind == "bert":
        config = BertConfig(vocab_size=100, max_position_embeddings=128, **SMALL)
    else:
        config = XLNetConfig(vocab_size=100, d_model=32, n_layer=2, n_head=4, d_inner=64)
    config.update({"num_labels": 1, **settings})
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    (directory / "model.safetensors").unlink()
    model.save_pretrained(directory)
    return directory


def conversations(*, ends=()):
    drawn = random.Random(0)
    rows = [tuple(drawn.randrange(96) for _ in range(length)) for length in LENGTHS]
    return [Encoded(tokens) for tokens in (*rows, *((*rows[2], end) for end in ends))]


def alone(directory, rows):
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.inference_mode():
        inputs = (torch.tensor([row.tokens]) for row in rows)
        return [model(input_ids=one, attention_mask=torch.ones_like(one)).logits.item() for one in inputs]


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("pad", [96, 99, None, -1])
def test_rewards_of_a_batch_are_those_of_single_conversations(tmp_path, kind, pad):
    if (kind, pad) == ("bert", -1):
        pytest.skip("BERT's embeddings know no padding token below 0")
    path = classifier(tmp_path, kind=kind, pad_token_id=pad)
    # Conversations that end with the padding token, which some models close every turn with, are among them.
    rows = conversations(ends=(96, 99, 0, 1, 2))
    model = Classifier(path, spoken.INLINE)
    assert model.rows_at_a_time > 1
    rewards = model.rewards(rows)
    assert rewards == pytest.approx(alone(path, rows), abs=1e-4)
    assert max(rewards) - min(rewards) > 0.02
    assert model.model.config.pad_token_id == pad


def test_a_class_that_reads_the_last_place_is_given_one_conversation_at_a_time(tmp_path):
    path = classifier(tmp_path, kind="xlnet", pad_token_id=96)
    model = Classifier(path, spoken.INLINE)
    assert model.rows_at_a_time == 1
    assert model.rewards(conversations()) == pytest.approx(alone(path, conversations()), abs=1e-4)


def test_a_rope_that_follows_the_longest_row_reads_one_conversation_at_a_time(tmp_path):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    path = classifier(tmp_path, pad_token_id=96, rope_parameters=rope, max_position_embeddings=64)
    assert Classifier(path, spoken.INLINE).rows_at_a_time == 1


def test_a_broken_padding_token_harms_no_row_beside_it(tmp_path):
    path = classifier(tmp_path, pad_token_id=96)
    weights = load_file(path / "model.safetensors")
    weights["model.embed_tokens.weight"][96] = math.nan
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    model = Classifier(path, spoken.INLINE)
    assert model.rewards(conversations()) == pytest.approx(alone(path, conversations()), abs=1e-4)


def test_a_batch_has_at_most_so_many_rows_and_padded_tokens():
    drawn = random.Random(1)
    lengths = [drawn.randrange(1, 300) for _ in range(500)] + [5000]
    found = list(batches(lengths, rows=16, tokens=1000))
    assert sorted(place for batch in found for place in batch) == list(range(501))
    sizes = [(len(batch), max(lengths[place] for place in batch)) for batch in found]
    assert all(rows == 1 or (rows <= 16 and rows * longest <= 1000) for rows, longest in sizes)
    assert max(rows for rows, _ in sizes) == 16
    assert len(found) < 150


def test_rows_of_a_stage_are_scored_in_few_passes_and_bad_ones_are_told_one_by_one(tmp_path, monkeypatch):
    scorer = RewardScorer(classifier(tmp_path, pad_token_id=96), spoken.INLINE)
    passes, real = [], Classifier._forward
    monkeypatch.setattr(Classifier, "_forward", lambda self, rows: passes.append(len(rows)) or real(self, rows))
    kept = {"sample": 0, "num_tokens": 1, "finish_reason": "stop", "error": None}
    rows = [
        {"row_id": str(n), "prompt_id": str(n), "prompt": "ask", "response": "a" * (n % 20), **kept} for n in range(40)
    ]
    rows[7]["prompt"], rows[8]["error"] = "x" * 200, "decoding failed"
    found = {row["row_id"]: row for row in scorer.process(rows)}
    assert {name for name, row in found.items() if row["reward"] is None} == {"7", "8"}
    assert sum(passes) == 38
    assert len(passes) <= 4
    assert found["9"]["reward"] == pytest.approx(next(iter(scorer.process([rows[9]])))["reward"], abs=1e-4)


def test_the_memory_of_a_batch_is_planned(tmp_path):
    path = classifier(tmp_path)
    known = read_architecture(path / "config.json")
    assert known is not None
    need = RewardModel(model=LocalModel(path=str(path))).need(new_tokens=8, resources=spoken.INLINE)
    assert need == memory.classifying(known, tokens=1024, itemsize=4)
    cuda = spoken.INLINE.changed(device="cuda", dtype="bfloat16")
    planned = RewardModel(model=LocalModel(path=str(path))).need(new_tokens=8, resources=cuda)
    assert planned == memory.classifying(known, tokens=classifiers.BATCH * 128, itemsize=2)


def pair_classifier(directory, kind):
    """Write a random encoder and a tokenizer that joins two texts as BERT's does, and has no chat template."""
    plain = spoken.byte_tokenizer(template=None)
    start, separator = (plain.convert_tokens_to_ids(token) for token in ("<doc>", "<end>"))
    plain.backend_tokenizer.post_processor = TemplateProcessing(
        single="<doc>:0 $A:0 <end>:0",
        pair="<doc>:0 $A:0 <end>:0 $B:1 <end>:1",
        special_tokens=[("<doc>", start), ("<end>", separator)],
    )
    path = classifier(directory, kind=kind, pad_token_id=96)
    joined = PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer, pad_token="<pad>", sep_token="<end>", model_input_names=INPUTS
    )
    joined.save_pretrained(path)
    (path / "chat_template.jinja").unlink(missing_ok=True)
    return path, joined


def answered(number, prompt, response, **more):
    kept = {"sample": 0, "num_tokens": 1, "finish_reason": "stop", "error": None}
    return {"row_id": str(number), "prompt_id": str(number), "prompt": prompt, "response": response, **kept, **more}


@pytest.mark.parametrize("kind", ["bert", "deberta"])
def test_an_encoder_without_a_template_reads_question_and_answer_as_its_tokenizer_joins_them(tmp_path, kind):
    path, tokenizer = pair_classifier(tmp_path, kind)
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    texts = [("Why?", "Because."), ("Why?", "B"), ("Who wrote it, and when?", "Nobody knows" * 5), ("a", "")]
    with torch.inference_mode():
        wanted = [model(**tokenizer(*pair, return_tensors="pt")).logits.item() for pair in texts]
    scorer = RewardScorer(path, spoken.INLINE, reads="pair")
    found = list(scorer.process([answered(number, *pair) for number, pair in enumerate(texts)]))
    assert [row["error"] for row in found] == [None] * 4
    assert [row["reward"] for row in found] == pytest.approx(wanted, abs=1e-4)
    assert Classifier(path, spoken.INLINE, reads="pair").rows_at_a_time > 1


def test_a_model_with_segments_is_told_which_text_is_the_answer(tmp_path):
    path, _ = pair_classifier(tmp_path, "bert")
    model = Classifier(path, spoken.INLINE, reads="pair")
    read = model.encode([{"role": "user", "content": "abc"}, {"role": "assistant", "content": "de"}])
    assert read.segments == (0, 0, 0, 0, 0, 1, 1, 1)
    told, untold = model.rewards([read]), model.rewards([Encoded(read.tokens)])
    assert abs(told[0] - untold[0]) > 1e-3


def test_a_question_and_an_answer_of_more_turns_have_no_reward_and_say_why(tmp_path):
    path, _ = pair_classifier(tmp_path, "bert")
    scorer = RewardScorer(path, spoken.INLINE, reads="pair")
    turns = [{"role": role, "content": "x"} for role in ("system", "user")]
    (found,) = scorer.process([answered(0, "x", "y", messages=turns)])
    assert found["reward"] is None
    assert "reads a question and an answer is given the turns system, user, assistant" in found["error"]


def test_an_encoder_that_knows_only_distances_reads_more_tokens_than_its_configuration_has_positions(tmp_path):
    rows = [answered(0, "why", "y" * 300), answered(1, "why", "n" * 300)]
    for kind, read in (("bert", False), ("deberta", True)):
        path, _ = pair_classifier(tmp_path / kind, kind)
        found = list(RewardScorer(path, spoken.INLINE, reads="pair").process(rows))
        assert [row["reward"] is not None for row in found] == [read, read]


def test_the_form_of_a_conversation_is_part_of_a_reward_models_identity(tmp_path):
    model = LocalModel(path=str(classifier(tmp_path)))
    chat, pair = RewardModel(model=model), RewardModel(model=model, reads="pair")
    assert canonical(chat) == {"class": "RewardModel", "model": canonical(model)}
    assert canonical(pair) == {**canonical(chat), "reads": "pair"}
    with pytest.raises(ValueError, match="reads = 'pairs' is not one of chat, pair"):
        RewardModel(model=model, reads="pairs")  # pyright: ignore[reportArgumentType]
