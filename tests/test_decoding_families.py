"""Families whose configurations and layers differ: token for token as without a cache in both engines, or refused."""

import pytest
import spoken
import torch
from reference_decoding import STOP_IDS, ragged_prompts, reference_greedy, tiny_model
from transformers import AutoConfig, PreTrainedConfig

from cong.decoding import ContrastivePair, Decoding, GenerateEngine, Request, SlotEngine
from cong.decoding.models import check_decodable, common_max_context, common_positions
from cong.decoding.sizing import architecture
from cong.errors import UserError
from cong.generation.backends import make_engine
from cong.graph.resources import Resources
from cong.models.architecture import from_config

OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
FALCON = {"alibi": False, "num_kv_heads": 2}
NAMED = {
    "gpt2": OLD,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.4},
    "falcon": FALCON | {"multi_query": True, "new_decoder_architecture": False},
    "falcon, new": FALCON | {"new_decoder_architecture": True},
    "gptj": OLD | {"rotary_dim": 4},
    "gpt_bigcode": OLD | {"multi_query": True},
    "gpt_neox": {},
}
EXPERTS = {
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
}
WINDOWS = {
    "mistral, pi_ref's alone": ("mistral", {"sliding_window": None}, {"sliding_window": 5}),
    "mistral, two of them": ("mistral", {"sliding_window": 9}, {"sliding_window": 4}),
    "qwen2, pi_r's upper layer": (
        "qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}, {},
    ),
}  # fmt: skip
ENGINES = {"slots": SlotEngine, "transformers": GenerateEngine}


def pair(family, post=None, pre=None):
    """Two random models whose distributions are peaked."""
    made = []
    for seed, settings in enumerate((post or {}, pre or {})):
        model = tiny_model(family.split(",")[0], seed=seed, **settings)
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.3)
        made.append(model)
    return made


def check_pair_of(engine, post, pre, *, new=10, count=5, expect_reward=True):
    """Compare texts and implicit rewards with passes without a cache."""
    requests = [
        Request(row_id=str(index), prompt_token_ids=prompt, alpha=0.3)
        for index, prompt in enumerate(ragged_prompts(count, seed=5))
    ]
    decoding = Decoding(max_new_tokens=new, repetition_penalty=1.2)
    for completion in ENGINES[engine](post=post, pre=pre, tokenizer=None, decoding=decoding).decode(requests):
        prompt = requests[int(completion.row_id)].prompt_token_ids
        settings = {"max_new_tokens": new, "stop_ids": STOP_IDS, "penalty": 1.2}
        tokens, logprob_post, logprob_pre = reference_greedy(post, pre, prompt, alpha=0.3, **settings)
        assert completion.token_ids == tuple(token for token in tokens if token not in STOP_IDS)
        if expect_reward:
            reward = completion.logprob_post - completion.logprob_pre
            assert reward == pytest.approx(logprob_post - logprob_pre, abs=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", NAMED)
def test_other_names_of_numbers_are_known(family, engine):
    check_pair_of(engine, *pair(family, NAMED[family], NAMED[family]))


@pytest.mark.parametrize(
    ("family", "inner", "kv_heads"),
    [("gpt2", 128, 4), ("opt", 48, 4), ("falcon", 128, 1), ("falcon, new", 128, 4), ("gpt_bigcode", 128, 1)],
)
def test_the_numbers_are_those_of_the_model(family, inner, kv_heads):
    model = tiny_model(family.split(",")[0], seed=0, **NAMED[family])
    for name in ("intermediate_size", "num_key_value_heads"):
        vars(model.config).pop(name, None)  # The settings of all tiny models; these families have names of their own.
    numbers = architecture(model.config)
    assert (numbers.inner, numbers.kv_heads) == (inner, kv_heads)
    assert (numbers.layers, numbers.width, numbers.heads, numbers.positions) == (2, 32, 4, 128)
    assert from_config(model.config.to_dict()) is not None
    cache = model(input_ids=torch.tensor([[20, 21]]), use_cache=True).past_key_values
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers) // 2
    assert numbers.cache_bytes_per_token(itemsize=1) == held


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", EXPERTS)
def test_a_pair_of_experts_decodes_in_both_engines(family, engine):
    check_pair_of(engine, *pair(family, EXPERTS[family], EXPERTS[family]))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", WINDOWS)
def test_each_model_of_a_pair_keeps_its_own_window(name, engine):
    family, post, pre = WINDOWS[name]
    check_pair_of(engine, *pair(family, post, pre))


def test_generate_itself_gives_each_model_its_own_window():
    post, pre = pair("mistral", {"sliding_window": 5}, {"sliding_window": None})
    dressed = ContrastivePair(post=post, pre=pre, alpha=0.3, pruning_threshold=0.1)
    prompt = (20, 30, 40, 50, 60, 70, 80, 90)
    made = dressed.generate(input_ids=torch.tensor([prompt]), max_new_tokens=9, do_sample=False)  # pyright: ignore
    tokens, _, _ = reference_greedy(post, pre, prompt, alpha=0.3, max_new_tokens=9, stop_ids=())
    assert made[0, len(prompt) :].tolist() == tokens


ROPES = {
    "dynamic": {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 24, "rope_theta": 1e4},
    "longrope": {
        "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "factor": 4.0,
        "original_max_position_embeddings": 24, "rope_theta": 1e4,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ROPES)
def test_a_rope_that_follows_the_longest_row_is_exact_or_an_error_of_the_row(kind):
    post, pre = pair("llama", {"rope_parameters": ROPES[kind]}, {"rope_parameters": ROPES[kind]})
    for model in (post, pre):
        model.generation_config.eos_token_id = None
    assert common_max_context(post.config, pre.config) == 24
    assert common_positions(post.config, pre.config) == 128
    requests = [Request(row_id=str(length), prompt_token_ids=(20,) * length, alpha=0.3) for length in (5, 14, 15, 24)]
    expected = {
        r.row_id: reference_greedy(post, pre, r.prompt_token_ids, alpha=0.3, max_new_tokens=10, stop_ids=())[0]
        for r in requests
    }
    found = {
        name: {
            c.row_id: c
            for c in engine(post=post, pre=pre, tokenizer=None, decoding=Decoding(max_new_tokens=10)).decode(requests)
        }
        for name, engine in ENGINES.items()
    }
    assert {name: list(c.token_ids) for name, c in found["transformers"].items()} == expected
    for length in ("5", "14"):
        assert list(found["slots"][length].token_ids) == expected[length]
    assert "reaches 24 positions, where the rope changes" in str(found["slots"]["15"].error)
    assert "24 tokens; at most 23" in str(found["slots"]["24"].error)


@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        ("falcon", {"alibi": True, "multi_query": False}, "by a bias of its own"),
        (
            "gpt_neo",
            {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
            "a bias of its own",
        ),
        ("openai-gpt", OLD, "has no cache"),
        ("bloom", {"n_head": 4, "n_layer": 1}, "bias of its own|position_ids|positions"),
    ],
)
def test_what_the_slots_would_decode_wrongly_is_refused(family, settings, reason):
    model = tiny_model(family, seed=0, **settings)
    with pytest.raises(ValueError, match=reason):
        check_decodable(model, max_context=64)


@pytest.mark.parametrize("backend", ["slots", "transformers"])
def test_a_model_that_no_engine_decodes_is_one_line(tmp_path, backend):
    spoken.checkpoint(tmp_path, family="bloom", n_head=4, n_layer=1)
    resources = Resources(name="t").changed(ray=False, actors=0, backend=backend)
    with pytest.raises(UserError, match=f"{tmp_path} cannot be loaded: BloomForCausalLM does not") as refusal:
        make_engine(post=tmp_path, pre=None, settings={"max_new_tokens": 4}, resources=resources)
    assert "\n" not in str(refusal.value)


def test_a_configuration_without_the_numbers_is_named():
    with pytest.raises(ValueError, match="BloomConfig states no number of positions"):
        common_positions(AutoConfig.for_model("bloom"))
    with pytest.raises(ValueError, match="PreTrainedConfig states no numbers of layers"):
        architecture(PreTrainedConfig())
