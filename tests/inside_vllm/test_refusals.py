"""What a pair inside vLLM refuses, asked of vLLM itself; and the guards against what it would do in silence."""

# pyright: reportMissingImports=false
# vLLM is an extra: not everybody who checks the types has it.

import json
import shutil
from typing import Any

import pytest
import torch
from engines import decode, directories, engine, start
from reference_decoding import ragged_prompts
from safetensors.torch import load_file, save_file
from vllm_serving import configuration, serve

from cong.decoding import Decoding, Request
from cong.decoding.inside_vllm.checks import GUARD, check_engine
from cong.decoding.inside_vllm.engine import VllmEngine


@pytest.mark.parametrize("side", ["post", "pre"])
@pytest.mark.parametrize("change", ["missing", "extra"])
def test_a_checkpoint_with_missing_or_extra_weights_is_refused_on_both_sides(tmp_path, side, change):
    paths = dict(zip(("post", "pre"), (tmp_path / "post", tmp_path / "pre"), strict=True))
    for source, target in zip(directories("qwen2"), paths.values(), strict=True):
        shutil.copytree(source, target)
    file = paths[side] / "model.safetensors"
    tensors = load_file(file)
    if change == "missing":
        del tensors["model.layers.1.self_attn.k_proj.weight"]
    else:
        tensors["model.layers.2.self_attn.k_proj.weight"] = torch.zeros(64, 128)
    save_file(tensors, file, metadata={"format": "pt"})
    message = r"(misses|beyond its architecture) model\.layers\.\d\.self_attn\.k_proj\.weight"
    with pytest.raises(ValueError, match=message):
        start(paths["post"], paths["pre"])
    with pytest.raises(Exception, match=message):
        serve(paths["post"], paths["pre"])


def test_vllm_itself_takes_a_pair_with_a_missing_weight(tmp_path, monkeypatch):
    # The reason for the check: should vLLM refuse it one day, this test says that the check can go.
    post, pre = directories("qwen2")
    shutil.copytree(pre, tmp_path / "pre")
    tensors = load_file(pre / "model.safetensors")
    del tensors["model.layers.1.self_attn.k_proj.weight"]
    save_file(tensors, tmp_path / "pre" / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr("cong.decoding.inside_vllm.model.check_weights", lambda path: None)
    assert serve(post, tmp_path / "pre")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enable_lora": True}, "merge the adapter"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "speculative decoding"),
        ({"pipeline_parallel_size": 2, "distributed_executor_backend": "mp"}, "ipeline parallelism"),
        ({"block_size": 16}, "blocks of a multiple of 32 tokens, not 16"),
        ({"enable_prompt_embeds": True}, "an embedding given from outside"),
        ({"hf_overrides": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}}, "would reach pi_r alone"),
    ],
)
def test_an_engine_that_would_decode_wrongly_is_refused(options, message):
    # Of pipeline parallelism vLLM itself says so, for the model does not name it among what it can.
    with pytest.raises((ValueError, NotImplementedError), match=message):
        check_engine(configuration(*directories("qwen2"), **options))


def test_vllm_starts_no_pair_without_the_guard():
    check_engine(configuration(*directories("qwen2")))
    with pytest.raises(Exception, match="start vLLM with --logits-processors"):
        serve(*directories("qwen2"), logits_processors=[])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"allowed_token_ids": [5, 6]}, "allowed_token_ids cannot be used"),
        ({"min_tokens": 3}, "min_tokens cannot be used"),
        ({"prompt_logprobs": 1}, "prompt_logprobs would be those of F"),
    ],
)
def test_a_request_that_could_leave_nothing_to_choose_is_refused(parameters, message):
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    llm = serve(*directories("qwen2"))
    with pytest.raises(VLLMValidationError, match=message):
        llm.generate({"prompt_token_ids": [30, 40]}, SamplingParams(max_tokens=4, **parameters), use_tqdm=False)


def test_a_structured_output_is_refused():
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    from cong.decoding.inside_vllm.guard import HeadOnly

    # Asked of the guard itself: without a tokenizer vLLM refuses structured outputs before it asks.
    parameters = SamplingParams(max_tokens=4, structured_outputs=StructuredOutputsParams(choice=["a", "b"]))
    with pytest.raises(ValueError, match="structured_outputs cannot be used"):
        HeadOnly.validate_params(parameters)


def test_vllm_alone_decodes_the_pair_as_the_engine_does():
    """The model is also a model of `vllm serve`, with one alpha for all and vLLM's own sampler."""
    from vllm import SamplingParams

    llm = serve(*directories("qwen2"), cd_alpha=0.3)
    requests = [Request(row_id=str(i), prompt_token_ids=p, alpha=0.3) for i, p in enumerate(ragged_prompts(12))]
    expected = decode(engine("qwen2"), requests, repetition_penalty=1.2)
    parameters = SamplingParams(temperature=0, repetition_penalty=1.2, max_tokens=24, stop_token_ids=[3, 11, 19])
    outputs = llm.generate(
        [{"prompt_token_ids": list(request.prompt_token_ids)} for request in requests], parameters, use_tqdm=False
    )
    for request, output in zip(requests, outputs, strict=True):
        tokens = tuple(token for token in output.outputs[0].token_ids if token not in (3, 11, 19))
        assert tokens == expected[request.row_id].token_ids


def test_every_layer_of_both_models_has_a_name_of_its_own():
    config = engine("qwen2").llm.llm_engine.vllm_config
    names = list(config.compilation_config.static_forward_context)
    assert len(names) == len(set(names)) == 4
    assert {name.split(".")[1] for name in names} == {"pi_r", "pi_ref"}


def test_a_head_of_float32_reaches_both_models():
    # vLLM's overrides of the configuration reach the outer model alone.
    llm = serve(*directories("qwen2"), dtype="bfloat16", hf_overrides={"head_dtype": "float32"})
    assert llm.collective_rpc("head_dtypes") == [[torch.float32, torch.float32]]


def test_pairs_whose_caches_differ_and_contexts_without_positions_are_refused(tmp_path):
    post, pre = directories("qwen2")
    shutil.copytree(pre, tmp_path / "pre")
    config: dict[str, Any] = json.loads((pre / "config.json").read_text())
    (tmp_path / "pre" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    with pytest.raises(Exception, match="the pair has positions for 64 tokens"):
        serve(post, tmp_path / "pre")
    assert start(post, tmp_path / "pre").max_context == 64
    with pytest.raises(Exception, match="model_type is 'qwen2' in pi_r and 'llama' in pi_ref"):
        serve(post, directories("llama")[1])


def test_stop_strings_are_refused():
    with pytest.raises(ValueError, match="inside vLLM rows end at tokens only"):
        VllmEngine(post="x", pre="y", tokenizer=None, decoding=Decoding(max_new_tokens=4, stop_strings=("end",)))
    with pytest.raises(ValueError, match="inside vLLM rows end at tokens only"):
        engine("qwen2").use(Decoding(max_new_tokens=4, stop_strings=("end",)))


def test_the_threads_of_the_process_can_still_be_set():
    before = torch.set_num_threads
    start(*directories("llama"))
    assert torch.set_num_threads is before


def test_the_guard_is_named_as_vllm_finds_it():
    from vllm.utils.import_utils import resolve_obj_by_qualname

    assert resolve_obj_by_qualname(GUARD.replace(":", ".")).__name__ == "HeadOnly"
