"""Numbers that are none end a training, a pass of a frozen model, a choice of pairs and a mean."""

import math
from pathlib import Path
from typing import Any

import pytest
from test_training_tiny import Given, dpo, make_model, make_pairs, make_responses, run, sft

from cong.data import read_rows, write_rows
from cong.evaluation import Evaluate, bootstrap
from cong.evaluation.judging.local import _preferred
from cong.scoring.pairs import BestAgainstWorst, ConfidentPairs, PreferencePairs
from cong.training import ORPO, AuxConf, ReferenceLogprobs, ResponseLogprobs


def spoil(monkeypatch: pytest.MonkeyPatch, *, step: int, value: float) -> None:
    """Put a number that is none into one gradient of a step, as an overflow does."""
    from transformers import Trainer

    whole = Trainer.training_step

    def spoiled(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = whole(self, *args, **kwargs)
        if self.state.global_step == step - 1:
            gradient = list(self.model.parameters())[-1].grad
            gradient.view(-1)[0] = value
        return loss

    monkeypatch.setattr(Trainer, "training_step", spoiled)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("kind", ["dpo", "orpo", "auxconf"])
def test_a_gradient_of_the_last_step_that_is_no_number_publishes_no_model(tmp_path, monkeypatch, kind, value) -> None:
    model = make_model(tmp_path / "model")
    common = {"model": model, "learning_rate": 1e-3, "global_batch_size": 8}
    stage = {
        "dpo": lambda: dpo(tmp_path, rows=16),
        "orpo": lambda: ORPO(data=make_pairs(tmp_path / "pairs", rows=16), weight=0.5, **common),
        "auxconf": lambda: AuxConf(data=make_responses(tmp_path / "responses", rows=16), **common),
    }[kind]()
    if kind == "dpo":
        run(stage.reference, tmp_path / "store")
    spoil(monkeypatch, step=2, value=value)
    with pytest.raises(FloatingPointError, match="diverged"):
        run(stage, tmp_path / "store")
    out = tmp_path / "store" / stage.name / stage.slug
    assert not (out / "model").exists()
    assert not (out / "training.json").exists()


def test_weights_that_are_no_numbers_are_not_saved_even_where_no_log_says_so(tmp_path: Path, monkeypatch) -> None:
    import torch

    from cong.training import settings

    def overflow(self: Any, *args: Any, **kwargs: Any) -> None:
        step(self, *args, **kwargs)
        self.param_groups[0]["params"][0].data.view(-1)[0] = math.inf

    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    monkeypatch.setattr(settings, "_POINTS", 1)
    with pytest.raises(FloatingPointError, match=r"1 of \d+ tensors, the first is"):
        run(sft(tmp_path, rows=8), tmp_path / "store")


def broken_model(directory: Path) -> Any:
    """Return a model whose logits are not all numbers: one token's embedding, which is also its head, is NaN."""
    from safetensors.torch import load_file, save_file

    model = make_model(directory)
    weights = load_file(directory / "model.safetensors")
    weights["model.embed_tokens.weight"][-1] = math.nan
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return model


def test_reference_log_probabilities_that_are_no_numbers_name_their_prompt(tmp_path: Path) -> None:
    model = broken_model(tmp_path / "model")
    pairs = ReferenceLogprobs(model=model, data=make_pairs(tmp_path / "pairs", rows=4))
    responses = ResponseLogprobs(model=model, data=make_responses(tmp_path / "responses", rows=4))
    for stage in (pairs, responses):
        with pytest.raises(FloatingPointError, match=r"of prompt_id 'p\d' is nan"):
            run(stage, tmp_path / "store")
        assert not list((tmp_path / "store").rglob("*.parquet"))


def scores(directory: Path, rewards: dict[str, list[float | None]]) -> Given:
    """Write `scores.parquet`: several rewards per prompt."""
    directory.mkdir(parents=True, exist_ok=True)
    rows = [
        {"prompt_id": name, "prompt": name, "sample": sample, "response": f"{directory.name} {name} {sample}",
         "num_tokens": 3,
         "reward": reward, "error": None}
        for name, found in rewards.items() for sample, reward in enumerate(found)
    ]  # fmt: skip
    write_rows(directory / "scores.parquet", rows)
    return Given(directory=str(directory))


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_neither_best_nor_worst_nor_part_of_a_mean(tmp_path: Path, reward: float) -> None:
    scored = scores(tmp_path / "scores", {"a": [1.0, 2.0], "b": [reward, 0.5]})
    for stage in (BestAgainstWorst(scored=scored), Evaluate(scored=scored)):
        with pytest.raises(FloatingPointError, match=r"reward of prompt_id 'b' is -?(nan|inf)"):
            run(stage, tmp_path / "store")


def test_a_gap_of_two_rewards_that_are_no_numbers_chooses_no_pair(tmp_path: Path) -> None:
    one = scores(tmp_path / "one", {"a": [2.0], "b": [math.inf]})
    other = scores(tmp_path / "other", {"a": [1.0], "b": [1.0]})
    for side in ("one", "other"):
        write_rows(tmp_path / side / "responses.parquet", read_rows(tmp_path / side / "scores.parquet"))
    pairs = PreferencePairs(chosen=one, rejected=other)
    with pytest.raises(FloatingPointError, match="prompt_id 'b'"):
        run(ConfidentPairs(pairs=pairs, chosen=one, rejected=other, margin=0.5), tmp_path / "store")


def test_a_row_that_failed_stays_out_of_the_mean_and_is_counted(tmp_path: Path) -> None:
    out = run(Evaluate(scored=scores(tmp_path / "scores", {"a": [1.0, None], "b": [3.0]})), tmp_path / "store")
    assert '"reward": 2.0' in (out / "summary.json").read_text()
    assert '"failed_rows": 1' in (out / "summary.json").read_text()


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 0.0]])
def test_what_has_no_mean_has_no_interval(values: list[float]) -> None:
    with pytest.raises(ValueError, match="reward has no mean"):
        bootstrap("reward", values, seed=0)


@pytest.mark.parametrize("pair", [(math.nan, 1.0), (1.0, math.nan), (math.inf, math.inf)])
def test_a_local_judge_compares_no_rewards_that_are_no_numbers(pair: tuple[float, float]) -> None:
    with pytest.raises(FloatingPointError, match="cannot be compared"):
        _preferred(*pair)
