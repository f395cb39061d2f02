"""`cong decode`, stages and Ray Data actors with vLLM: the same rows as with the slot engine, also after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow.parquet as pq
import pytest
from engines import pair
from transformers import AutoTokenizer

from cong.data import RESPONSES, read_rows
from cong.generation import ContrastiveGenerate, Generate, Sampling
from cong.graph.plan import make_plan
from cong.graph.resources import Resources
from cong.graph.runner import Runner
from cong.graph.store import Store
from cong.models import LocalModel
from cong.synthetic.stages import SyntheticPrompts
from cong.synthetic.tokenizer import build_tokenizer
from cong.synthetic.world import World, make_prompts

WORLD = World()
CLOSE = {"logprob_post", "logprob_pre", "implicit_reward"}


@cache
def models() -> dict[str, str]:
    """Checkpoints with the tokenizer of the tiny world."""
    root = Path(mkdtemp(prefix="cong-vllm-"))
    build_tokenizer(WORLD, family="qwen", directory=root / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(root / "tokenizer")
    for model, name in zip(pair("qwen2", vocab_size=len(tokenizer)), ("post", "pre"), strict=True):
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {name: str(root / name) for name in ("post", "pre")}


def same_rows(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    """Equal in everything but the last digits of the log-probabilities."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert {k: v for k, v in one.items() if k not in CLOSE} == {k: v for k, v in other.items() if k not in CLOSE}
        for name in CLOSE:
            # Sums over a response in float32: random weights make them some hundreds of nats.
            assert one[name] is None or one[name] == pytest.approx(other[name], abs=1e-4, rel=1e-6)


def test_cong_decode_gives_the_texts_of_the_slot_engine_also_when_it_was_killed(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    rows = make_prompts(WORLD, split="train", count=200, seed=3)
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [item for name, path in models().items() for item in (f"--{name}", path)]

    def command(backend: str, output: Path) -> list[str]:
        return [
            sys.executable, "-m", "cong.cli", "decode", *given, "--prompts", str(prompts), "--alpha", "0.3,0.6",
            "--max-new-tokens", "24", "--no-ray", "--batch-size", "4", "--backend", backend, "--output", str(output),
        ]  # fmt: skip

    killed, slots = tmp_path / "vllm.parquet", tmp_path / "slots.parquet"
    process = subprocess.Popen(command("vllm", killed))
    while not list((tmp_path / "vllm.parquet.work" / ".scratch" / "parts").glob("part-*")):
        assert process.poll() is None, "decoded everything before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    written = {part: part.stat().st_mtime_ns for part in (tmp_path / "vllm.parquet.work").rglob("part-*")}
    assert 0 < sum(int(part.name.split("-")[1]) for part in written) < 400
    done = subprocess.run(command("vllm", killed), capture_output=True, text=True, check=True)
    assert "400 rows decoded, 0 failed" in done.stdout
    subprocess.run(command("slots", slots), check=True)
    same_rows(read_rows(killed), read_rows(slots))
    assert len({row["response"] for row in read_rows(slots)}) > 100
    assert pq.read_schema(killed).metadata[b"cong.backend"].startswith(b"vllm 0.32.0")
    assert pq.read_schema(slots).metadata[b"cong.backend"] == b"slots"


def _stages() -> list[Any]:
    prompts = SyntheticPrompts(world=WORLD, split="heldout", count=40, seed=0)
    post, pre = (LocalModel(path=models()[name]) for name in ("post", "pre"))
    sampling = Sampling(temperature=0.8, top_p=0.9)
    return [
        ContrastiveGenerate(post=post, pre=pre, prompts=prompts, alpha=0.4, max_new_tokens=16),
        Generate(model=post, prompts=prompts, max_new_tokens=16, samples=2, sampling=sampling),
    ]


def _run(tmp_path: Path, resources: Resources) -> tuple[list[Any], list[Any]]:
    store = Store(tmp_path / resources.name)
    stages = _stages()
    Runner(store=store, resources=resources).run(make_plan({s.title: s for s in stages}, store))
    return [read_rows(store.directory(s) / RESPONSES) for s in stages], [store.record(s)["results"] for s in stages]


def test_stages_give_the_same_responses_in_this_process_and_in_actors(tmp_path, ray_of_two_cpus):
    slots, records = _run(tmp_path, Resources(name="slots").changed(ray=False, actors=0, slots=8))
    assert {record["backend"] for record in records} == {"slots"}
    inside = Resources(name="inside").changed(ray=False, actors=0, slots=8, backend="vllm")
    actors = Resources(name="actors").changed(actors=2, slots=8, backend="vllm")
    for resources in (inside, actors):
        rows, records = _run(tmp_path, resources)
        assert {record["backend"] for record in records} == {"vllm 0.32.0"}
        for one, other in zip(rows, slots, strict=True):
            same_rows(one, other)


def test_an_actor_spreads_the_pair_over_two_processes(tmp_path, ray_of_two_cpus):
    slots, _ = _run(tmp_path, Resources(name="slots").changed(ray=False, actors=0, slots=8))
    spread = Resources(name="spread").changed(actors=1, slots=8, backend="vllm", tensor_parallel=2)
    for one, other in zip(_run(tmp_path, spread)[0], slots, strict=True):
        same_rows(one, other)
