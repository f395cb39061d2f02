"""Does a long decoding survive the death of its workers: every prompt once, the same text, memory flat?

Decodes prompts of the synthetic world with a random pair through Ray Data actors, twice: undisturbed, and with one
actor killed (SIGKILL) after a third and after two thirds of the rows. Says how many rows came, which prompts are
missing or come twice, how many texts differ, and what memory all processes held from quarter to quarter.

    python experiments/bench_resume.py --prompts 10000 --actors 2
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cong.data import read_rows, write_rows
from cong.synthetic.world import World, make_prompts

INTERVAL = 0.5


@dataclass(kw_only=True)
class Watched:
    """What was seen of one decoding: (rows finished, bytes held by all its processes) over time, and the kills."""

    samples: list[tuple[int, int]] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def quarters(self, total: int) -> list[float]:
        """Median MiB in each quarter of the rows; 0 where a quarter was not seen."""
        found = []
        for quarter in range(4):
            held = [size for rows, size in self.samples if quarter <= 4 * rows / total < quarter + 1 and rows]
            found.append(statistics.median(held) / 2**20 if held else 0.0)
        return found


def save_pair(directory: Path) -> tuple[Path, Path]:
    """Checkpoints of two random models that differ a little, as alignment would leave them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cong.synthetic.models import build_config
    from cong.synthetic.tokenizer import build_tokenizer

    build_tokenizer(World(), family="qwen", directory=directory / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(directory / "tokenizer")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(build_config("qwen", "3B", tokenizer))
    for name in ("pre", "post"):
        model.save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.02 * torch.randn_like(weight))
    return directory / "post", directory / "pre"


def decode(command: Sequence[str], output: Path, *, total: int, kill_at: Sequence[int]) -> Watched:
    """Run `cong decode` to its end; kill one actor whenever that many rows are finished."""
    watched, targets, started = Watched(), list(kill_at), time.monotonic()
    process = subprocess.Popen([*command, "--output", str(output)], start_new_session=True)
    parts = output.with_name(f"{output.name}.work") / ".scratch" / "parts"
    while process.poll() is None:
        rows = sum(int(path.name.split("-")[1]) for path in parts.glob("part-*.parquet"))
        watched.samples.append((rows, held_bytes(process.pid)))
        if targets and rows >= targets[0]:
            targets.pop(0)
            watched.killed.append(kill_an_actor(process.pid))
        time.sleep(INTERVAL)
    watched.seconds = time.monotonic() - started
    if process.returncode != 0:
        sys.exit(f"error: the decoding ended with exit code {process.returncode}")
    assert not targets, f"the decoding of {total} rows ended before all kills"
    return watched


def held_bytes(pid: int) -> int:
    """Proportional memory of a process and all its descendants."""
    return sum(_proportional(process) for process in _family(pid))


def kill_an_actor(pid: int) -> int:
    """Kill one of the processes that decode, and return its pid."""
    actors = [process for process in _family(pid) if "MapWorker" in " ".join(_command_line(process))]
    assert actors, "there is no actor to kill"
    os.kill(actors[0].pid, signal.SIGKILL)
    return actors[0].pid


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _proportional(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--max-new-tokens", type=int, default=24)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), total=arguments.prompts, actors=arguments.actors, tokens=arguments.max_new_tokens)


def compare(directory: Path, *, total: int, actors: int, tokens: int) -> None:
    """Decode undisturbed and disturbed, and print what came of it; exit code 1 when the two differ."""
    post, pre = save_pair(directory)
    prompts = make_prompts(World(), split="train", count=total, seed=0)
    write_rows(directory / "prompts.parquet", prompts)
    command = [
        sys.executable, "-m", "cong.cli", "decode", "--post", str(post), "--pre", str(pre), "--prompts",
        str(directory / "prompts.parquet"), "--actors", str(actors), "--max-new-tokens", str(tokens),
    ]  # fmt: skip
    texts, faults = {}, 0
    for kind, kill_at in (("undisturbed", []), ("disturbed", [total // 3, 2 * total // 3])):
        output = directory / f"{kind}.parquet"
        watched = decode(command, output, total=total, kill_at=kill_at)
        rows = read_rows(output)
        ids = [row["prompt_id"] for row in rows]
        exact = sorted(ids) == sorted(row["prompt_id"] for row in prompts)
        faults += not exact or any(row["error"] is not None for row in rows)
        texts[kind] = {row["prompt_id"]: (row["response"], row["response_token_ids"]) for row in rows}
        print(
            f"{kind}: {len(rows)} rows, {len(set(ids))} prompts, every one once: {exact}, {len(watched.killed)} kills, "
            f"{watched.seconds:.0f} s, MiB by quarter: {json.dumps([round(size) for size in watched.quarters(total)])}"
        )
    differ = sum(texts["disturbed"].get(key) != value for key, value in texts["undisturbed"].items())
    print(f"texts that differ: {differ}")
    sys.exit(1 if differ or faults else 0)


if __name__ == "__main__":
    main()
