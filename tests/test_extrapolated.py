"""A model moved on along its training: the arithmetic, files of one and of many shards, and what does not fit."""

import json
from pathlib import Path

import pytest
from test_training_tiny import dpo, make_model, run, summary

from cong.errors import UserError
from cong.models import LocalModel
from cong.training import Extrapolated, LoRA


def weights(directory: Path) -> dict:
    from safetensors.torch import load_file

    return {name: tensor for path in directory.glob("*.safetensors") for name, tensor in load_file(path).items()}


def two(tmp_path: Path, **other) -> dict[str, LocalModel]:
    """Return two models of one shape, or of another."""
    return {
        "model": make_model(tmp_path / "after", seed=1),
        "start": make_model(tmp_path / "before", **{"seed": 2, **other}),
    }


def in_shards(model: LocalModel) -> LocalModel:
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model.path)
    (Path(model.path) / "model.safetensors").unlink()
    loaded.save_pretrained(model.path, max_shard_size="30KB")
    assert len(list(Path(model.path).glob("*.safetensors"))) > 1
    return LocalModel(path=model.path)


@pytest.mark.parametrize("shards", ["neither", "after", "before", "both"])
def test_every_weight_is_moved_by_the_step_whatever_the_files(tmp_path: Path, shards: str) -> None:
    import torch

    models = two(tmp_path)
    for name, place in (("model", "after"), ("start", "before")):
        if shards in (place, "both"):
            models[name] = in_shards(models[name])
    out = run(Extrapolated(**models, step=0.5), tmp_path / "store") / "model"
    after, before, moved = (weights(path) for path in (tmp_path / "after", tmp_path / "before", out))
    assert moved.keys() == after.keys()
    for name in after:
        assert torch.equal(moved[name], after[name] + 0.5 * (after[name] - before[name]))
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "after").iterdir()}


@pytest.mark.parametrize(("step", "like"), [(0.0, "after"), (-1.0, "before")])
def test_a_step_of_0_is_the_model_and_one_of_minus_1_its_start(tmp_path: Path, step: float, like: str) -> None:
    import torch

    out = run(Extrapolated(**two(tmp_path), step=step), tmp_path / "store") / "model"
    found, expected = weights(out), weights(tmp_path / like)
    for name in expected:
        assert torch.equal(found[name], expected[name]) if step == 0 else torch.allclose(found[name], expected[name])


def test_a_step_of_0_keeps_every_bit_in_half_precision_too(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    models = two(tmp_path)
    for model in models.values():
        AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.bfloat16).save_pretrained(model.path)
    models = {name: LocalModel(path=model.path) for name, model in models.items()}
    found = weights(run(Extrapolated(**models, step=0.0), tmp_path / "zero") / "model")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert all(torch.equal(found[name], tensor) for name, tensor in weights(tmp_path / "after").items())
    moved = weights(run(Extrapolated(**models, step=0.3), tmp_path / "more") / "model")
    before = weights(tmp_path / "before")
    for name, tensor in found.items():
        exact = tensor.float() + 0.3 * (tensor.float() - before[name].float())
        assert torch.equal(moved[name], exact.to(torch.bfloat16))


def test_what_lies_beside_the_weights_is_the_models_and_it_can_be_loaded(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = run(Extrapolated(**two(tmp_path), step=0.5), tmp_path / "store")
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        assert (out / "model" / name).read_bytes() == (tmp_path / "after" / name).read_bytes()
    assert AutoTokenizer.from_pretrained(out / "model").chat_template
    assert AutoModelForCausalLM.from_pretrained(out / "model").num_parameters() > 10_000
    assert summary(out)["step"] == 0.5


def test_models_of_other_shapes_or_tensors_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"cannot be merged: \S+ has shape \(\d+.*\) in \S+after and \(.*\) in \S+before$"
    ):
        run(Extrapolated(**two(tmp_path, hidden=16), step=0.5), tmp_path / "store")
    from safetensors.torch import save_file

    models = two(tmp_path)
    found = weights(tmp_path / "before")
    dropped = sorted(found)[0]
    del found[dropped]
    save_file(found, tmp_path / "before" / "model.safetensors")
    models["start"] = LocalModel(path=str(tmp_path / "before"))
    with pytest.raises(UserError, match=f"cannot be merged: {dropped} of .*after is not in .*before$"):
        run(Extrapolated(**models, step=0.5), tmp_path / "store")
    with pytest.raises(UserError, match=f"cannot be merged: {dropped} of .*after is not in .*before$"):
        run(Extrapolated(model=models["start"], start=models["model"], step=0.5), tmp_path / "store")


def test_a_tied_head_that_only_the_start_stores_does_not_matter(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    models = two(tmp_path)
    found = weights(tmp_path / "before")
    save_file(
        {**found, "lm_head.weight": found["model.embed_tokens.weight"].clone()},
        tmp_path / "before" / "model.safetensors",
    )
    models["start"] = LocalModel(path=str(tmp_path / "before"))
    out = run(Extrapolated(**models, step=0.5), tmp_path / "store") / "model"
    assert weights(out).keys() == weights(tmp_path / "after").keys()


def test_a_step_without_end_is_refused_and_one_that_leaves_the_numbers_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="step = nan is not a number"):
        Extrapolated(**two(tmp_path), step=float("nan"))
    with pytest.raises(FloatingPointError, match="is NaN or infinite after a step of 1e\\+300"):
        run(Extrapolated(**two(tmp_path), step=1e300), tmp_path / "store")


def test_a_kill_between_files_leaves_no_half_model(tmp_path: Path) -> None:
    stage = Extrapolated(**two(tmp_path), step=0.5)
    half = tmp_path / "store" / stage.name / stage.slug / ".model"
    half.mkdir(parents=True)
    (half / "stale.json").write_text("{}")
    out = run(stage, tmp_path / "store")
    assert not (out / ".model").exists()
    assert not (out / "model" / "stale.json").exists()


def test_a_trained_model_is_moved_on_from_where_it_began_and_an_adapter_is_merged_first(tmp_path: Path) -> None:
    import torch

    for name, lora in (("whole", None), ("adapter", LoRA(rank=2))):
        trained = dpo(tmp_path, rows=16, lora=lora)
        stage = Extrapolated(model=trained, start=trained.model, step=1.0)
        assert stage.trainings == trained.trainings
        assert stage.parameters() == trained.parameters()
        out = run(stage, tmp_path / name)
        moved, before = weights(out / "model"), weights(tmp_path / "model")
        assert moved.keys() == before.keys()
        assert any(not torch.equal(moved[one], before[one]) for one in before)
        assert not (out / "model" / "adapter_config.json").exists()
        assert json.loads((out / "model" / "config.json").read_text())["model_type"] == "qwen2"
