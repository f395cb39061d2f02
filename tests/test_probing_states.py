"""Hidden states: as a plain loop reads them, by parts, and what is planned and refused."""

import dataclasses

import pytest
import torch
from test_probing import hidden, responses
from test_training_tiny import make_model, make_responses, run, summary

from cong.data import RESPONSES, read_rows, write_rows
from cong.errors import UserError
from cong.graph.resources import Resources
from cong.probing import states
from cong.probing.states import STATES, read_states
from cong.training.rows import completion_rows


@pytest.mark.parametrize("of", ["prompt", "response"])
@pytest.mark.parametrize("token", ["last", "mean"])
@pytest.mark.parametrize(("layer", "most"), [(-1, 4096), (1, 40)], ids=["last layer", "middle layer in small batches"])
def test_states_are_those_of_a_plain_loop_over_single_rows(tmp_path, monkeypatch, of, token, layer, most):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setattr(states, "MOST_TOKENS", most)
    stage = hidden(tmp_path, rows=9, of=of, token=token, layer=layer)
    out = run(stage, tmp_path / "store")
    found = read_states(out / STATES)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    rows = read_rows(tmp_path / "responses" / RESPONSES)
    tokens = completion_rows(AutoTokenizer.from_pretrained(tmp_path / "model"), rows, max_length=64).columns
    assert set(found) == {row["row_id"] for row in rows}
    for row, ids, labels in zip(rows, tokens["input_ids"], tokens["labels"], strict=True):
        with torch.no_grad():
            every = model(torch.tensor(ids.tolist())[None], output_hidden_states=True).hidden_states[layer][0]
        inside = torch.tensor((labels == -100) if of == "prompt" else (labels != -100))
        expected = every[inside][-1] if token == "last" else every[inside].mean(dim=0)
        assert found[row["row_id"]].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert summary(out)["rows"] == 9


def test_the_state_at_the_prompt_knows_nothing_of_the_response(tmp_path):
    stage = hidden(tmp_path, rows=6, of="prompt")
    first = read_states(run(stage, tmp_path / "first") / STATES)
    responses(tmp_path / "responses", rows=6, words=" ban dush")
    second = read_states(run(stage, tmp_path / "second") / STATES)
    ends = dataclasses.replace(stage, of="response")
    third = read_states(run(ends, tmp_path / "third") / STATES)
    assert all(first[key].tolist() == pytest.approx(second[key].tolist(), abs=1e-5) for key in first)
    assert any(abs(first[key] - third[key]).max() > 1e-2 for key in first)


def test_a_pass_that_was_killed_reads_the_missing_parts_alone_and_a_row_with_an_error_has_no_state(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(states, "PART", 4)
    stage = hidden(tmp_path, rows=10)
    rows = read_rows(tmp_path / "responses" / RESPONSES)
    rows[3] |= {"error": "out of memory", "response": None}
    write_rows(tmp_path / "responses" / RESPONSES, rows)
    out = run(stage, tmp_path / "store")
    whole = read_states(out / STATES)
    assert set(whole) == {row["row_id"] for row in rows} - {"p3#0"}
    kept, gone = sorted((out / STATES).glob("*.parquet"))[:2]
    before = kept.stat().st_mtime_ns
    gone.unlink()
    again = read_states(run(stage, tmp_path / "store") / STATES)
    assert kept.stat().st_mtime_ns == before
    assert {key: state.tolist() for key, state in again.items()} == {key: s.tolist() for key, s in whole.items()}


def test_a_layer_that_a_model_lacks_and_unknown_words_are_refused(tmp_path):
    stage = hidden(tmp_path, rows=1)
    stage.check()
    for layer in (3, -4):
        with pytest.raises(UserError, match=rf"layer = {layer}: .* has the layers 0 to 2"):
            dataclasses.replace(stage, layer=layer).check()
    for name in ("of", "token"):
        with pytest.raises(ValueError, match=f"{name} = 'x' is not one of"):
            dataclasses.replace(stage, **{name: "x"})


def test_memory_and_work_of_a_pass_are_planned(tmp_path):
    stage = hidden(tmp_path, rows=1)
    resources = Resources(name="gpu").changed(device="cuda", dtype="bfloat16", gpu_memory_gb=24)
    need, more = stage.memory(resources), dataclasses.replace(stage, layer=1).memory(resources)
    assert need is not None
    assert more is not None
    assert 0 < need.working < more.working


def test_every_field_of_a_pass_enters_its_fingerprint(tmp_path):
    stage = hidden(tmp_path, rows=1)
    changed = [{"model": make_model(tmp_path / "other", seed=9)}, {"of": "prompt"}, {"token": "mean"}, {"layer": 1},
               {"max_length": 9}, {"data": make_responses(tmp_path / "others", rows=2)}]  # fmt: skip
    made = [stage, *(dataclasses.replace(stage, **one) for one in changed)]
    assert {item.name for item in dataclasses.fields(stage)} == {name for one in changed for name in one}
    assert len({item.fingerprint for item in made}) == len(made)
