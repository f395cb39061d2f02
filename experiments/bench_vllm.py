"""How fast the pair is inside vLLM: against one model inside vLLM, the slot engine, `generate` and the published loop.

Two loads, both with random weights, ragged prompts and a repetition penalty of 1.2: `ragged` is that of
`bench_decoding.py`, whose responses have all lengths and whose end leaves slots empty; `even` has more and shorter
prompts and responses of one length, so that all slots stay full. All engines are built before the first measurement and
run in turn; what is compiled is compiled before it is measured.

    make .venv-vllm/.installed
    OMP_NUM_THREADS=1 .venv-vllm/bin/python experiments/bench_vllm.py --slots 64 --repeats 5 --output bench_vllm.json
"""

# pyright: reportMissingImports=false
# vLLM is an extra: not everybody who checks the types has it.

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_decoding import (
    PENALTY,
    SIZES,
    THRESHOLD,
    build_model,
    build_requests,
    generate_batches,
    generated,
    published_loop,
    slot_engine,
)
from bench_tools import Run, measure, spread
from transformers.utils import logging

from cong.decoding import Decoding, Request
from cong.decoding.inside_vllm.engine import VllmEngine


def engine(post: Path, pre: Path | None, arguments: Any) -> VllmEngine:
    """vLLM, compiled, with room for the longest row of the load."""
    return VllmEngine(
        post=post,
        pre=pre,
        tokenizer=None,
        decoding=Decoding(
            max_new_tokens=arguments.max_new_tokens, repetition_penalty=PENALTY, pruning_threshold=THRESHOLD
        ),
        slots=arguments.slots,
        max_context=arguments.longest_prompt + arguments.max_new_tokens,
        dtype="float32" if arguments.device == "cpu" else "bfloat16",
        device=arguments.device,
        eager=arguments.eager,
        options={"enable_prefix_caching": False, "gpu_memory_utilization": 0.25},
    )


def decode(held: VllmEngine, requests: Sequence[Request]) -> int:
    return sum(completion.num_tokens for completion in held.decode(requests))


def unchanged(post: Path, like: VllmEngine, arguments: Any) -> Callable[[Sequence[Request]], int]:
    """One model as vLLM itself has it: its own class of the model, and its own sampler."""
    from vllm import LLM, SamplingParams

    context = arguments.longest_prompt + arguments.max_new_tokens
    options: dict[str, Any] = {"block_size": 32, "kv_cache_memory_bytes": 2**28} if arguments.device == "cpu" else {}
    llm = LLM(
        model=str(post), skip_tokenizer_init=True, generation_config="vllm", max_model_len=context,
        max_num_seqs=like.slots, enable_prefix_caching=False, enforce_eager=arguments.eager, async_scheduling=False,
        dtype="float32" if arguments.device == "cpu" else "bfloat16", gpu_memory_utilization=0.25, **options,
    )  # fmt: skip

    def run(requests: Sequence[Request]) -> int:
        prompts = [{"prompt_token_ids": list(request.prompt_token_ids)} for request in requests]
        parameters = [
            SamplingParams(temperature=0, repetition_penalty=PENALTY, max_tokens=r.max_new_tokens, detokenize=False)
            for r in requests
        ]
        outputs = llm.generate(prompts, parameters, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return run


def build_loads(arguments: Any, *, vocabulary: int) -> dict[str, list[Request]]:
    """What is decoded, by name."""
    shorter = argparse.Namespace(**vars(arguments) | {"prompts": 2 * arguments.prompts})
    shorter.longest_prompt, length = arguments.longest_prompt // 2, arguments.max_new_tokens * 2 // 3
    even = [replace(request, max_new_tokens=length) for request in build_requests(shorter, vocabulary=vocabulary)]
    return {"ragged": build_requests(arguments, vocabulary=vocabulary), "even": even}


def build_engines(directory: Path, arguments: Any) -> dict[str, Callable[[Sequence[Request]], int]]:
    """Engines by name, the published loop first."""
    dtype = torch.float32 if arguments.device == "cpu" else torch.bfloat16
    models = [build_model(arguments.size, seed=seed, dtype=dtype, device=arguments.device) for seed in (0, 1)]
    paths = [directory / name for name in ("post", "pre")]
    for model, path in zip(models, paths, strict=True):
        model.save_pretrained(path)
    few, slots, (post, pre) = arguments.loop_prompts, arguments.slots, models
    pair, single = engine(paths[0], paths[1], arguments), engine(paths[0], None, arguments)
    alone = unchanged(paths[0], pair, arguments)
    return {
        "published loop": lambda load: published_loop(post, pre, load[:few]),
        "generate, one model": lambda load: generate_batches(post, load, batch_size=slots),
        "slots, one model": lambda load: generated(slot_engine(post, None, load, slots=slots)),
        "slots, pair": lambda load: generated(slot_engine(post, pre, load, slots=slots)),
        "vllm as it is, one model": alone,
        "vllm, one model": partial(decode, single),
        "vllm, pair": partial(decode, pair),
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--loop-prompts", type=int, default=32, help="the published loop decodes only the first few")
    parser.add_argument("--longest-prompt", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--eager", action="store_true", help="without compilation")
    parser.add_argument("--output", type=Path, default=Path("bench_vllm.json"))
    return parser.parse_args()


def measure_load(
    engines: dict[str, Callable[[Sequence[Request]], int]], load: Sequence[Request], arguments: Any
) -> dict[str, list[Run]]:
    """Runs of every engine, in turn."""
    for name, run in engines.items():
        if name.startswith("vllm"):
            run(load)
    runs: dict[str, list[Run]] = {name: [] for name in engines}
    for _ in range(arguments.repeats):
        for name, run in engines.items():
            runs[name].append(measure(partial(run, load), device=arguments.device))
    return runs


def show_load(load: str, runs: dict[str, list[Run]], *, device: str) -> list[dict[str, Any]]:
    """Print the table of a load and what the pair costs, and return the rows."""
    unit = "CPU-second" if device == "cpu" else "second"
    print(f"\n{f'engine ({load})':<26}{f'per {unit}':>16}{'lowest':>10}{'highest':>10}{'x loop':>9}")
    rows: list[dict[str, Any]] = []
    for name, measured in runs.items():
        loop = rows[0]["rate"] if rows else 0.0
        rows.append({"load": load} | show(name, measured, loop=loop, device=device))
    rate = {row["engine"]: row["rate"] for row in rows}
    for single in ("vllm as it is, one model", "vllm, one model"):
        print(f"the pair costs {rate[single] / rate['vllm, pair']:.2f} times '{single}'")
    return rows


def show(name: str, runs: Sequence[Run], *, loop: float, device: str) -> dict[str, Any]:
    """Print median and spread of a rate, and return them."""
    seconds = [run.cpu_seconds if device == "cpu" else run.seconds for run in runs]
    middle, lowest, highest = spread([run.tokens / took for run, took in zip(runs, seconds, strict=True)])
    times = middle / loop if loop else 1.0
    print(f"{name:<26}{middle:>16,.0f}{lowest:>10,.0f}{highest:>10,.0f}{times:>9.1f}")
    return {"engine": name, "rate": middle, "lowest": lowest, "highest": highest, "times_loop": times}


def main() -> None:
    arguments = parse_arguments()
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as directory:
        engines = build_engines(Path(directory), arguments)
        loads = build_loads(arguments, vocabulary=SIZES[arguments.size][5])
        runs = {name: measure_load(engines, load, arguments) for name, load in loads.items()}
    rows = [row for name in loads for row in show_load(name, runs[name], device=arguments.device)]
    arguments.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
