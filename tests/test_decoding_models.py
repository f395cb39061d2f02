"""Loading models, and the checks before decoding."""

import pytest
import torch
from reference_decoding import STOP_IDS, tiny_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, PreTrainedTokenizerFast

from cong.decoding import check_pair, load_model
from cong.decoding.models import check_decodable, stop_token_ids


def tokenizer_of(words, **special):
    vocabulary = {word: index for index, word in enumerate(words)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token=words[0])), **special)


def config_of(size):
    return AutoConfig.for_model("llama", vocab_size=size)


WORDS = [f"w{i}" for i in range(20)]


def test_a_pair_padded_to_different_sizes_is_accepted():
    tokenizer = tokenizer_of(WORDS)
    check_pair(post_tokenizer=tokenizer, pre_tokenizer=tokenizer, post_config=config_of(32), pre_config=config_of(20))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["w1", "w0", *WORDS[2:]], r"token id 0 is 'w0'.*'w1'"),
        ([*WORDS[:-1], "other"], r"token id 19 is 'w19'.*'other'"),
        ([*WORDS, "extra"], r"token id 20 is None.*'extra'"),
    ],
)
def test_a_pair_of_different_vocabularies_is_refused_with_the_reason(words, reason):
    with pytest.raises(ValueError, match=reason):
        check_pair(
            post_tokenizer=tokenizer_of(WORDS),
            pre_tokenizer=tokenizer_of(words),
            post_config=config_of(32),
            pre_config=config_of(32),
        )


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_a_saved_model_is_loaded_frozen_in_the_asked_dtype(tmp_path, family):
    saved = tiny_model(family, seed=0)
    saved.save_pretrained(tmp_path)
    model = load_model(tmp_path, dtype="float32", device="cpu")
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert model.config._attn_implementation == ("eager" if family == "gemma2" else "sdpa")
    for name, weight in saved.named_parameters():
        assert torch.equal(weight, model.get_parameter(name))
    assert load_model(tmp_path, dtype="bfloat16", device="cpu").dtype == torch.bfloat16


def test_stop_tokens_come_from_the_generation_config_and_the_tokenizer():
    model = tiny_model("llama", seed=0)
    assert stop_token_ids(model, None) == frozenset(STOP_IDS)
    assert stop_token_ids(model, tokenizer_of(WORDS, eos_token="w7")) == frozenset([*STOP_IDS, 7])


def test_a_rope_that_follows_the_longest_row_is_refused_beyond_its_training_length():
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0, "original_max_position_embeddings": 64}
    model = tiny_model("llama", seed=0, rope_parameters=rope)
    check_decodable(model, max_context=64)
    with pytest.raises(ValueError, match=r"64 positions.*it is 128"):
        check_decodable(model, max_context=128)


def test_layers_without_plain_attention_are_refused():
    model = tiny_model("llama", seed=0)
    model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ValueError, match="linear_attention"):
        check_decodable(model, max_context=64)
