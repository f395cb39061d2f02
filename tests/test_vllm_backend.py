"""The vLLM backend where vLLM is not: what is refused and chosen without it. `tests/inside_vllm` runs it."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import small
import torch
from reference_decoding import tiny_model
from safetensors.torch import load_file, save_file

from cong.decoding.inside_vllm.checks import GUARD, SETTINGS, check_alike, check_engine, check_request
from cong.decoding.inside_vllm.weights import check_weights
from cong.errors import UserError
from cong.generation import ContrastiveGenerate, Generate, backends
from cong.generation.backends import backend_note, backend_of, check_backend
from cong.generation.needs import decoding_need
from cong.graph.resources import Resources, load_profile
from cong.models import LocalModel
from cong.scoring import Score
from cong.scoring.rewards import Likelihood
from cong.synthetic.stages import SyntheticPrompts

PROMPTS = SyntheticPrompts(world=small.WORLD, split="heldout", count=2, seed=0)


def resources(**settings: Any) -> Resources:
    return Resources(name="t").changed(**({"ray": False, "actors": 0} | settings))


@pytest.fixture
def installed(monkeypatch):
    """What is looked at is whether there is such a module, not what is in it."""
    monkeypatch.setattr(backends, "vllm_installed", lambda: True)


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.setattr(backends, "vllm_installed", lambda: False)


def test_asking_for_vllm_where_it_is_not_says_which_command_installs_it(absent, tmp_path):
    command = r"pip install 'cong\[vllm\]'"
    with pytest.raises(UserError, match=f"needs vLLM, which is not installed: {command}"):
        check_backend(resources(backend="vllm"))
    for stage in (
        Generate(model=LocalModel(path="m"), prompts=PROMPTS, max_new_tokens=4),
        ContrastiveGenerate(
            post=LocalModel(path="m"), pre=LocalModel(path="n"), prompts=PROMPTS, alpha=0.5, max_new_tokens=4
        ),
    ):
        with pytest.raises(UserError, match=command):
            stage.check_execution(resources(backend="vllm"))
        stage.check_execution(resources(backend="auto", device="cuda"))


@pytest.mark.skipif(backends.vllm_installed(), reason="vLLM is installed here")
def test_nothing_imports_vllm_and_cong_decode_refuses_it_in_one_line(tmp_path):
    tiny_model("qwen2", seed=0).save_pretrained(tmp_path / "model")
    # Here an import of vLLM would be an error.
    code = """
import cong.cli.app, cong.run.session, cong.generation.files, cong.decoding, cong.decoding.inside_vllm.plugin
import cong.decoding.inside_vllm.engine, cong.decoding.inside_vllm.checks, cong.decoding.inside_vllm.weights
cong.cli.app.main()
"""
    arguments = ["--post", str(tmp_path / "model"), "--prompts", "no.jsonl", "--output", str(tmp_path / "out.parquet")]
    done = subprocess.run(
        [sys.executable, "-c", code, "decode", *arguments, "--backend", "vllm", "--no-ray"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().endswith("not installed: pip install 'cong[vllm]'")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out.parquet.work").exists()


def test_auto_takes_vllm_on_a_gpu_where_it_is_installed(installed):
    assert backend_of(resources(backend="auto", device="cuda")) == "vllm"
    assert backend_of(resources(backend="auto", device="cpu")) == "slots"
    assert backend_of(resources(backend="auto", device="cuda"), adapter=True) == "slots"
    assert backend_of(resources(backend="vllm", device="cpu")) == "vllm"


def test_auto_takes_slots_where_vllm_is_not(absent):
    assert backend_of(resources(backend="auto", device="cuda")) == "slots"


def test_an_adapter_is_refused_with_what_to_do(installed):
    with pytest.raises(UserError, match="merge it into its base, or choose backend = 'slots'"):
        check_backend(resources(backend="vllm"), adapter=True)


def test_the_backend_is_execution_and_stands_in_the_record(small_run, tmp_path):
    records = [json.loads(path.read_text()) for path in small_run.store.root.glob("*Generate/*/record.json")]
    assert records
    assert all(record["results"]["backend"] == "slots" for record in records)
    assert backend_note(resources(backend="transformers")) == "transformers"
    stage = Generate(model=LocalModel(path=str(_checkpoint(tmp_path))), prompts=PROMPTS, max_new_tokens=4)
    assert "backend" not in json.dumps(stage.identity())


def test_cong_decode_notes_the_backend_in_its_output(small_run, tmp_path):
    from cong.generation.files import FileJob, decode_file

    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "name two old birds and two old tools"}\n')
    settings = {"max_new_tokens": 4, "repetition_penalty": 1.2}
    job = FileJob(
        post=next(small_run.store.root.glob("Pretrain/*/model")), pre=None, prompts=prompts,
        output=tmp_path / "out.parquet", alphas=(0.5,), settings=settings, seed=0,
        resources=resources(backend="transformers"),
    )  # fmt: skip
    decode_file(job)
    metadata = pq.read_schema(tmp_path / "out.parquet").metadata
    assert metadata[b"cong.backend"] == b"transformers"


def _checkpoint(path: Path, **overrides: Any) -> Path:
    tiny_model("qwen2", seed=0, **overrides).save_pretrained(path / "model")
    return path / "model"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"), r"misses model.layers.1.mlp.up_proj.weight"),
        (lambda tensors: tensors.update(spare=torch.zeros(2)), "holds beyond its architecture spare"),
        (lambda tensors: tensors.update({"model.norm.weight": torch.zeros(3)}), "has another shape of model.norm"),
        (lambda tensors: tensors.clear(), r"misses lm_head.weight and \d+ more"),
    ],
)
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_weights_that_are_missing_or_too_many_are_named(tmp_path, family, change, message):
    tiny_model(family, seed=0).save_pretrained(tmp_path)
    check_weights(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        check_weights(tmp_path)


def test_tied_embeddings_shards_and_computed_buffers_are_no_fault(tmp_path):
    tied = _checkpoint(tmp_path / "tied", tie_word_embeddings=True)
    check_weights(tied)
    tensors = load_file(tied / "model.safetensors")
    assert "lm_head.weight" not in tensors
    tensors |= {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}
    tensors |= {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    save_file(tensors, tied / "model.safetensors", metadata={"format": "pt"})
    check_weights(tied)
    sharded = tmp_path / "sharded"
    tiny_model("llama", seed=0).save_pretrained(sharded, max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    # What the index does not name, vLLM does not read.
    save_file({"spare": torch.zeros(2)}, sharded / "consolidated.safetensors")
    check_weights(sharded)
    next(sharded.glob("model-00002*")).unlink()
    with pytest.raises(OSError, match="model-00002"):
        check_weights(sharded)


def engine_config(**changes: Any) -> Any:
    """As much of vLLM's configuration as is looked at; `change="model.name"` goes by the dot."""
    found: dict[str, Any] = {
        "model_config": SimpleNamespace(
            hf_overrides={"architectures": ["ContrastivePairForCausalLM"], **SETTINGS}, logits_processors=[GUARD],
            quantization=None, enable_prompt_embeds=False,
        ),
        "parallel_config": SimpleNamespace(pipeline_parallel_size=1),
        "cache_config": SimpleNamespace(block_size=32),
        "device_config": SimpleNamespace(device_type="cpu"),
        "lora_config": None,
        "speculative_config": None,
    }  # fmt: skip
    for name, value in changes.items():
        part, _, field = name.partition("__")
        if field:
            setattr(found[part], field, value)
        else:
            found[part] = value
    return SimpleNamespace(**found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parallel_config__pipeline_parallel_size": 2}, "pipeline parallelism"),
        ({"lora_config": object()}, "merge the adapter"),
        ({"speculative_config": object()}, "speculative decoding"),
        ({"model_config__quantization": "fp8"}, "quantized weights"),
        ({"model_config__enable_prompt_embeds": True}, "an embedding given from outside"),
        ({"model_config__hf_overrides": {"rope_parameters": {}}}, r"\['rope_parameters'\] would reach pi_r alone"),
        ({"model_config__logits_processors": None}, "start vLLM with --logits-processors"),
        ({"cache_config__block_size": 16}, "multiple of 32 tokens, not 16"),
    ],
)
def test_an_engine_that_would_decode_wrongly_is_refused_with_the_reason(change, message):
    check_engine(engine_config())
    check_engine(engine_config(device_config__device_type="cuda", cache_config__block_size=16))
    with pytest.raises(ValueError, match=message):
        check_engine(engine_config(**change))


@pytest.mark.parametrize(
    "given",
    [
        {"structured_outputs": object()}, {"allowed_token_ids": [1]}, {"bad_words": ["a"]}, {"min_tokens": 1},
        {"prompt_logprobs": 0},
    ],
)  # fmt: skip
def test_a_request_that_could_leave_nothing_to_choose_from_is_refused(given):
    free: dict[str, Any] = {
        "structured_outputs": None, "allowed_token_ids": None, "bad_words": None, "min_tokens": 0,
        "prompt_logprobs": None,
    }  # fmt: skip
    check_request(SimpleNamespace(**free))
    with pytest.raises(ValueError, match=next(iter(given))):
        check_request(SimpleNamespace(**(free | given)))


def test_models_whose_caches_differ_are_no_pair():
    def config(**changes: Any) -> Any:
        shape = {"model_type": "llama", "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 128}
        return SimpleNamespace(**(shape | changes))

    check_alike(config(), config(), max_context=128)
    with pytest.raises(ValueError, match="head_dim is 32 in pi_r and 64 in pi_ref"):
        check_alike(config(), config(head_dim=64), max_context=128)
    with pytest.raises(ValueError, match="max_model_len is 128; the pair has positions for 64"):
        check_alike(config(), config(max_position_embeddings=64), max_context=128)


def test_tensor_parallelism_holds_gpus_for_actors_that_decode_and_for_nothing_else(tmp_path):
    wide = resources(device="cuda", backend="vllm", tensor_parallel=4, actors=2, ray=True, threads=3)
    assert (wide.actor_demand.cpus, wide.actor_demand.gpus) == (3, 4)
    stage = Generate(model=LocalModel(path=str(_checkpoint(tmp_path))), prompts=PROMPTS, max_new_tokens=4)
    demand = stage.demand(wide)
    assert (demand.cpus, demand.gpus, demand.processes) == (6, 8, 2)
    assert (demand.part.cpus, demand.part.gpus) == (3, 4)
    score = Score(responses=stage, judge=Likelihood(model=stage.model))
    assert score.demand(wide).gpus == 2
    assert wide.training_demand().gpus == 1
    with pytest.raises(ValueError, match="tensor_parallel = 2 needs backend = 'vllm', not 'slots'"):
        resources(tensor_parallel=2)


def test_tensor_parallelism_divides_weights_and_caches(tmp_path):
    models = (LocalModel(path=str(_checkpoint(tmp_path))),)
    one, four = (
        decoding_need(models, new_tokens=8, resources=resources(backend="vllm", tensor_parallel=count))
        for count in (1, 4)
    )
    assert one is not None
    assert four is not None
    assert four.weights == one.weights / 4
    assert four.cache == one.cache / 4
    assert four.working == one.working


def test_a_profile_names_backend_and_tensor_parallelism_for_each_size(tmp_path):
    profile = tmp_path / "wide.toml"
    profile.write_text(
        '[decoding]\nbackend = "auto"\ntensor_parallel = 2\n[[sizes]]\nup_to_parameters = 1e9\ntensor_parallel = 1\n'
    )
    loaded = load_profile(str(profile))
    assert (loaded.decoding.backend, loaded.decoding.tensor_parallel) == ("auto", 2)
    assert loaded.for_size(1e8).decoding.tensor_parallel == 1
    with pytest.raises(UserError, match="backend = 'sglang' is not one of auto, slots, transformers, vllm"):
        load_profile(str(profile), backend="sglang")
