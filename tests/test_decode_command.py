"""`cong decode`: a file of prompts in, a file of responses out."""

import json
import signal
import time
from pathlib import Path

import pytest
import small
import torch
from commands import cong, start
from peft import LoraConfig, get_peft_model

from cong.data import read_rows, write_rows
from cong.decoding import load_model
from cong.errors import UserError
from cong.generation.files import COLUMNS, FileJob, decode_file
from cong.generation.inputs import HubSplit, parse_source
from cong.graph.resources import Resources
from cong.synthetic.world import make_prompts

ENGINE = {
    "max_new_tokens": 24, "temperature": 0.0, "top_p": 1.0, "repetition_penalty": 1.2,
    "min_p": 0.0, "pruning_threshold": 0.1, "scores": "formula",
}  # fmt: skip
INLINE = Resources(name="inline").changed(ray=False, actors=0, slots=4)


@pytest.fixture
def pair(small_run) -> dict[str, Path]:
    return {
        "post": next(small_run.store.root.glob("DPO/beta=0.1*/model")),
        "pre": next(small_run.store.root.glob("Pretrain/*/model")),
    }


def job(pair: dict, prompts: Path | HubSplit, output: Path, **changes) -> FileJob:
    settings = {"alphas": (0.5,), "settings": ENGINE, "seed": 0, "resources": INLINE}
    return FileJob(**pair, prompts=prompts, output=output, **settings | changes)


def write_prompts(path: Path, count: int) -> Path:
    rows = make_prompts(small.WORLD, split="train", count=count, seed=3)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_alpha_gives_a_row_for_every_prompt(pair, tmp_path):
    prompts = write_prompts(tmp_path / "prompts.jsonl", 5)
    assert decode_file(job(pair, prompts, tmp_path / "out.parquet", alphas=(0.1, 0.9))) == (10, 0)
    rows = read_rows(tmp_path / "out.parquet")
    assert tuple(rows[0]) == COLUMNS
    assert [row["alpha"] for row in rows] == [0.1, 0.9] * 5
    assert all(row["implicit_reward"] == pytest.approx(row["logprob_post"] - row["logprob_pre"]) for row in rows)


def test_bad_rows_are_named_and_good_rows_are_decoded_all_the_same(pair, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    lines = [
        json.dumps({"prompt": "name two old birds and two old tools"}),
        json.dumps({"messages": [{"role": "user", "content": "name two old birds and two old tools"}]}),
        json.dumps({"prompt": ""}),
        "{broken",
        json.dumps({"prompt": "hello", "answer": "42"}),
        json.dumps({"prompt": "two " * 2000}),
    ]
    prompts.write_text("\n".join(lines))
    assert decode_file(job(pair, prompts, tmp_path / "out.parquet")) == (2, 4)
    rows = read_rows(tmp_path / "out.parquet")
    assert rows[0]["response"] == rows[1]["response"]
    assert [row["error"] is None for row in rows] == [True, True, False, False, False, False]
    assert "row 3: there is no text in 'prompt'" in rows[2]["error"]
    assert "row 4: is no JSON" in rows[3]["error"]
    assert "row 5: unknown column 'answer'" in rows[4]["error"]
    assert "the prompt has 2010 tokens; at most 511" in rows[5]["error"]


def test_a_parquet_file_gives_the_same_as_json_lines(pair, tmp_path):
    prompts = write_prompts(tmp_path / "prompts.jsonl", 4)
    write_rows(tmp_path / "prompts.parquet", [json.loads(line) for line in prompts.read_text().splitlines()])
    decode_file(job(pair, prompts, tmp_path / "a.parquet"))
    decode_file(job(pair, tmp_path / "prompts.parquet", tmp_path / "b.parquet"))
    assert read_rows(tmp_path / "a.parquet") == read_rows(tmp_path / "b.parquet")


def test_without_a_second_model_it_decodes_plainly(pair, tmp_path):
    prompts = write_prompts(tmp_path / "prompts.jsonl", 2)
    decode_file(job({"post": pair["post"], "pre": None}, prompts, tmp_path / "out.parquet"))  # pyright: ignore[reportArgumentType]
    assert all(row["logprob_pre"] is None and row["response"] for row in read_rows(tmp_path / "out.parquet"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alphas": (0.1, 1.2)}, r"alpha = 1.2 is not in \[0, 1\]"),
        ({"output": Path("/proc/nowhere/out.parquet")}, "cannot be written"),
        ({"post": Path("/no/such/model")}, "missing checkpoint"),
        ({"prompts": Path("/no/such/prompts.jsonl")}, "cannot be read"),
        ({"settings": ENGINE | {"scores": "guess"}}, "scores"),
        ({"settings": ENGINE | {"max_new_tokens": 0}}, "max_new_tokens"),
    ],
)
def test_a_mistake_is_named_before_anything_is_decoded(pair, tmp_path, change, message):
    prompts = write_prompts(tmp_path / "prompts.jsonl", 2)
    given = {**pair, "prompts": prompts, "output": tmp_path / "out.parquet", **change}
    with pytest.raises(UserError, match=message):
        decode_file(
            job(
                {key: given.pop(key) for key in ("post", "pre")}, given["prompts"], given["output"], **change_of(change)
            )
        )
    assert not (tmp_path / "out.parquet").exists()


def change_of(change: dict) -> dict:
    return {key: value for key, value in change.items() if key in ("alphas", "settings")}


def test_another_decoding_is_not_continued_by_mistake(pair, tmp_path):
    prompts = write_prompts(tmp_path / "prompts.jsonl", 2)
    work = tmp_path / "out.parquet.work"
    work.mkdir()
    (work / "decoding.json").write_text(json.dumps({"fingerprint": "another"}))
    with pytest.raises(UserError, match="holds a decoding with other settings"):
        decode_file(job(pair, prompts, tmp_path / "out.parquet"))


def test_a_pinned_dataset_gives_the_same_as_a_file_of_its_prompts(pair, tmp_path, monkeypatch):
    prompts = write_prompts(tmp_path / "prompts.jsonl", 4)
    mirrored = tmp_path / "mirror" / "owner" / "name"
    mirrored.mkdir(parents=True)
    rows = [json.loads(line) | {"score": 1.0} for line in prompts.read_text().splitlines()]
    write_rows(mirrored / "test.parquet", rows)
    monkeypatch.setenv("CONG_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    source = parse_source(f"owner/name@{'a' * 40}:test")
    assert source == HubSplit(repo="owner/name", revision="a" * 40, split="test")
    assert decode_file(job(pair, source, tmp_path / "hub.parquet")) == (4, 0)
    decode_file(job(pair, prompts, tmp_path / "file.parquet"))
    assert read_rows(tmp_path / "hub.parquet") == read_rows(tmp_path / "file.parquet")
    with pytest.raises(UserError, match=r"owner/name:other cannot be read"):
        decode_file(job(pair, HubSplit(repo="owner/name", revision="a" * 40, split="other"), tmp_path / "x.parquet"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("owner/name", "a .jsonl or .parquet file, or a dataset OWNER/NAME@COMMIT:SPLIT"),
        ("owner/name@main:test", "its commit with 40 hexadecimal digits"),
        (f"owner/name@{'a' * 40}", "OWNER/NAME@COMMIT:SPLIT, its commit"),
        ("prompts.csv", "a .jsonl or .parquet file"),
    ],
)
def test_a_source_of_prompts_that_is_not_pinned_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_source(text)


def test_an_adapter_is_decoded_beside_its_base_and_refused_alone(pair, tmp_path):
    base = load_model(pair["pre"], dtype="float32", device="cpu")
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    prompts = write_prompts(tmp_path / "prompts.jsonl", 3)
    given = {"post": tmp_path / "adapter", "pre": pair["pre"]}
    assert decode_file(job(given, prompts, tmp_path / "out.parquet")) == (3, 0)
    assert any(abs(row["implicit_reward"]) > 0.1 for row in read_rows(tmp_path / "out.parquet"))
    with pytest.raises(UserError, match="can only be the aligned model of a weak pair"):
        decode_file(job({**given, "pre": None}, prompts, tmp_path / "alone.parquet"))
    with pytest.raises(UserError, match="can only be the aligned model of a weak pair"):
        decode_file(job({"post": pair["post"], "pre": tmp_path / "adapter"}, prompts, tmp_path / "other.parquet"))
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "PROMPT_TUNING"}))
    with pytest.raises(UserError, match=r"type 'PROMPT_TUNING'; only LORA"):
        decode_file(job(given, prompts, tmp_path / "kind.parquet"))


def test_min_p_of_one_samples_what_greedy_decoding_takes(pair, tmp_path):
    prompts = write_prompts(tmp_path / "prompts.jsonl", 6)
    sampled = ENGINE | {"temperature": 1.0}
    for name, settings in (("greedy", ENGINE), ("sampled", sampled), ("min_p", sampled | {"min_p": 1.0})):
        decode_file(job(pair, prompts, tmp_path / f"{name}.parquet", settings=settings))
    greedy, sampled, min_p = (
        [row["response"] for row in read_rows(tmp_path / f"{name}.parquet")] for name in ("greedy", "sampled", "min_p")
    )
    assert min_p == greedy != sampled


def test_a_killed_decoding_goes_on_and_gives_the_same(pair, tmp_path):
    prompts = write_prompts(tmp_path / "prompts.jsonl", 97)
    arguments = [
        "decode", "--post", str(pair["post"]), "--pre", str(pair["pre"]), "--prompts", str(prompts),
        "--alpha", "0.2,0.6", "--max-new-tokens", "24", "--no-ray", "--batch-size", "2",
    ]  # fmt: skip
    killed, whole = tmp_path / "killed.parquet", tmp_path / "whole.parquet"
    process = start(*arguments, "--output", str(killed), env={})
    while not list((tmp_path / "killed.parquet.work" / ".scratch" / "parts").glob("part-*")):
        assert process.poll() is None, "decoded everything before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not killed.exists()
    for output in (killed, whole):
        code, said = cong(*arguments, "--output", str(output), env={})
        assert code == 0, said
        assert "194 rows decoded, 0 failed" in said
    assert read_rows(killed) == read_rows(whole)
    assert not list(tmp_path.glob("*.work"))


def test_failed_rows_show_in_the_exit_code(pair, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        json.dumps({"prompt": ""}) + "\n" + json.dumps({"prompt": "name two old birds and two old tools"})
    )
    arguments = ["--post", str(pair["post"]), "--prompts", str(prompts), "--output", str(tmp_path / "o.parquet")]
    code, said = cong("decode", *arguments, "--no-ray", "--max-new-tokens", "8", env={})
    assert code == 1
    assert "1 rows decoded, 1 failed" in said
