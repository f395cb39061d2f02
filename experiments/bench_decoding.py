"""How fast contrastive decoding is, and how near to the device's limits.

Compares the published loop (re-implemented from its description: one prompt at a time, two dynamic caches, a filter
that sorts the vocabulary), plain `generate`, the pair through `generate`, and the slot engine on one model and on a
pair. Random weights made on the spot, ragged prompts and response lengths, runs in turn.

    python experiments/bench_decoding.py --size tiny --slots 64 --output bench.png
"""

import argparse
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_tools import Run, device_limits, measure, spread
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, GenerationConfig
from transformers import RepetitionPenaltyLogitsProcessor as RepetitionPenalty
from transformers.utils import logging

from cong.decoding import ContrastivePair, Decoding, Request, SlotEngine
from cong.decoding.logprobs import left_pad

PENALTY, THRESHOLD, ALPHA = 1.2, 0.1, 0.5
SIZES = {  # hidden, feed-forward, layers, heads, key-value heads, vocabulary, tied embeddings
    "tiny": (128, 384, 4, 4, 2, 2048, False),
    "0.5B": (896, 4864, 24, 14, 2, 151936, True),
    "3B": (2048, 11008, 36, 16, 2, 151936, True),
    "7B": (3584, 18944, 28, 28, 4, 152064, False),
}


def build_model(size: str, *, seed: int, dtype: torch.dtype, device: str) -> Any:
    """A Qwen2-shaped model with random weights, which never emits a stop token."""
    hidden, feed_forward, layers, heads, kv_heads, vocabulary, tied = SIZES[size]
    config = AutoConfig.for_model(
        "qwen2",
        hidden_size=hidden,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=4096,
        eos_token_id=None,
    )
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval().requires_grad_(False)


def build_requests(arguments: Any, *, vocabulary: int) -> list[Request]:
    """Prompts and responses of uniformly drawn lengths."""
    rng, longest = random.Random(0), arguments.max_new_tokens
    return [
        Request(
            row_id=str(index),
            prompt_token_ids=tuple(rng.randrange(vocabulary) for _ in range(rng.randint(8, arguments.longest_prompt))),
            alpha=ALPHA,
            max_new_tokens=rng.randint(math.ceil(longest / 6), longest),
        )
        for index in range(arguments.prompts)
    ]


@torch.inference_mode()
def published_loop(post: Any, pre: Any, requests: Sequence[Request]) -> int:
    """One prompt at a time, both models on dynamic caches; tokens generated."""
    penalize: Any = RepetitionPenalty(PENALTY)
    for request in requests:
        ids = torch.tensor([request.prompt_token_ids], device=post.device)
        caches = [DynamicCache(config=model.config) for model in (post, pre)]
        new = ids
        for _ in range(request.max_new_tokens or 0):
            logits = [
                model(input_ids=new, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].float()
                for model, cache in zip((post, pre), caches, strict=True)
            ]
            new = penalize(ids, published_scores(*logits)).argmax(dim=-1, keepdim=True)
            ids = torch.cat([ids, new], dim=1)
            new.item()  # the loop looks at every token to decide whether to stop
    return sum(request.max_new_tokens or 0 for request in requests)


def published_scores(post_logits: torch.Tensor, pre_logits: torch.Tensor) -> torch.Tensor:
    """The published filter and difference: a sort of the vocabulary, and a second log_softmax of the reference."""
    post, pre = post_logits.log_softmax(-1), pre_logits.log_softmax(-1)
    ordered, _ = post.sort(descending=True)
    floor = torch.minimum(ordered[..., 0], post.max(dim=-1).values + math.log(THRESHOLD)).unsqueeze(-1)
    pre[post < floor] = -1e-3
    post[post < floor] = -math.inf
    return post - (1 - ALPHA) * pre.log_softmax(-1)


@torch.inference_mode()
def generate_batches(model: Any, requests: Sequence[Request], *, batch_size: int) -> int:
    """Left-padded batches through `generate`, each until its longest row ends; tokens that rows asked for."""
    device, model.generation_config = model.device, GenerationConfig()
    for start in range(0, len(requests), batch_size):
        batch = requests[start : start + batch_size]
        tokens, mask = left_pad([request.prompt_token_ids for request in batch], device=device)
        model.generate(
            tokens,
            attention_mask=mask,
            max_new_tokens=max(request.max_new_tokens or 0 for request in batch),
            do_sample=False,
            repetition_penalty=PENALTY,
            pad_token_id=0,
        )
    return sum(request.max_new_tokens or 0 for request in requests)


def slot_engine(
    post: Any, pre: Any | None, requests: Sequence[Request], *, slots: int, graphs: bool = False
) -> dict[str, tuple[int, ...]]:
    """Generated tokens of every request."""
    limit = max(request.max_new_tokens or 0 for request in requests)
    decoding = Decoding(max_new_tokens=limit, repetition_penalty=PENALTY, pruning_threshold=THRESHOLD)
    engine = SlotEngine(post=post, pre=pre, tokenizer=None, decoding=decoding, slots=slots, cuda_graphs=graphs)
    return {completion.row_id: completion.token_ids for completion in engine.decode(requests)}


def generated(completions: dict[str, tuple[int, ...]]) -> int:
    return sum(len(tokens) for tokens in completions.values())


def agreement(post: Any, pre: Any, requests: Sequence[Request], *, slots: int) -> tuple[float, float]:
    """Share of responses that are the same in float32, and share of tokens before the first difference."""
    low = slot_engine(post, pre, requests, slots=slots)
    high = slot_engine(post.float(), pre.float(), requests, slots=slots)
    common = {row: _common_start(tokens, high[row]) for row, tokens in low.items()}
    equal = sum(common[row] == len(tokens) for row, tokens in low.items())
    return equal / len(low), sum(common.values()) / generated(low)


def _common_start(one: Sequence[int], other: Sequence[int]) -> int:
    return next((index for index, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]), len(one))


def roofline_seconds(
    model: Any, requests: Sequence[Request], *, models: int, slots: int, bandwidth: float, rate: float
) -> float:
    """Least time for the load: weights once per step, every cached token once per generated token, two flops per
    weight and token; memory and arithmetic overlap perfectly."""
    config = model.config
    weights = model.num_parameters() - (0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size)
    width = model.dtype.itemsize
    head_dim = config.hidden_size // config.num_attention_heads
    cache_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * width
    lengths = [(len(request.prompt_token_ids), request.max_new_tokens or 0) for request in requests]
    generated, prompts = sum(new for _, new in lengths), sum(prompt for prompt, _ in lengths)
    steps = max(math.ceil(generated / slots), max(new for _, new in lengths))
    read = steps * weights * width + sum(new * (prompt + new / 2) for prompt, new in lengths) * cache_bytes
    return models * max(read / bandwidth, 2 * weights * (generated + prompts) / rate)


def build_jobs(post: Any, pre: Any, requests: Sequence[Request], arguments: Any) -> dict[str, tuple[int, Callable]]:
    """Engines by name: how many models each runs, and its job."""
    pair = ContrastivePair(post=post, pre=pre, alpha=ALPHA, pruning_threshold=THRESHOLD)
    few, slots = requests[: arguments.loop_prompts], arguments.slots
    jobs: dict[str, tuple[int, Callable]] = {
        "published loop": (2, lambda: published_loop(post, pre, few)),
        "generate, one model": (1, lambda: generate_batches(post, requests, batch_size=slots)),
        "generate, pair": (2, lambda: generate_batches(pair, requests, batch_size=slots)),
        "slots, one model": (1, lambda: generated(slot_engine(post, None, requests, slots=slots))),
        "slots, pair": (2, lambda: generated(slot_engine(post, pre, requests, slots=slots))),
    }
    if arguments.device != "cpu":
        jobs["slots, one model, graphs"] = (
            1,
            lambda: generated(slot_engine(post, None, requests, slots=slots, graphs=True)),
        )
        jobs["slots, pair, graphs"] = (
            2,
            lambda: generated(slot_engine(post, pre, requests, slots=slots, graphs=True)),
        )
    return {
        name: job
        for name, job in jobs.items()
        if name.replace(", ", "-").replace(" ", "-").startswith(tuple(arguments.engines))
    }


def summarise(name: str, models: int, runs: Sequence[Run], *, roofline: float | None, device: str) -> dict[str, Any]:
    """Medians and spread; a rate is tokens per CPU-second on a CPU and per second elsewhere."""
    rate, lowest, highest = spread([run.tokens / (run.cpu_seconds if device == "cpu" else run.seconds) for run in runs])
    return {
        "engine": name,
        "models": models,
        "rate": rate,
        "lowest": lowest,
        "highest": highest,
        "wall_rate": spread([run.tokens / run.seconds for run in runs])[0],
        "peak_gb": max(run.peak_bytes for run in runs) / 1e9,
        "roofline_share": None if roofline is None else rate / roofline,
    }


def plot(rows: Sequence[dict[str, Any]], *, path: Path, title: str, unit: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    rates = [row["rate"] for row in rows]
    spread = [[row["rate"] - row["lowest"] for row in rows], [row["highest"] - row["rate"] for row in rows]]
    bars = axes.barh([row["engine"] for row in rows], rates, xerr=spread, capsize=3, color="tab:blue", alpha=0.8)
    axes.bar_label(bars, [f"{rate:,.0f} ({rate / rates[0]:.1f}x)" for rate in rates], padding=8)
    axes.set_xlim(right=1.3 * max(row["highest"] for row in rows))
    axes.set(xlabel=unit, title=title)
    axes.invert_yaxis()
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=150)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default=None, help="float32 on a CPU and bfloat16 elsewhere unless given")
    parser.add_argument("--engines", nargs="+", default=[""], help="only those that begin so: slots-pair")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--loop-prompts", type=int, default=32, help="the published loop decodes only the first few")
    parser.add_argument("--longest-prompt", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--agreement", action=argparse.BooleanOptionalAction, default=True, help="with float32 texts")
    parser.add_argument("--output", type=Path, default=Path("bench_decoding.png"))
    return parser.parse_args()


def _rate(rows: Sequence[dict[str, Any]], engine: str) -> float:
    return next(row["rate"] for row in rows if row["engine"] == engine)


def main() -> None:
    arguments = parse_arguments()
    logging.set_verbosity_error()
    device = arguments.device
    if device == "cpu":
        # Of two threads one waits most of the time of a loop at batch 1, and waiting costs CPU-seconds.
        torch.set_num_threads(1)
    dtype = getattr(torch, arguments.dtype or ("float32" if device == "cpu" else "bfloat16"))
    post, pre = (build_model(arguments.size, seed=seed, dtype=dtype, device=device) for seed in (0, 1))
    requests = build_requests(arguments, vocabulary=post.config.vocab_size)
    bandwidth, rate = device_limits(dtype=dtype, device=device)
    print(f"{device} {dtype}: copy {bandwidth / 1e9:.1f} GB/s, matrix product {rate / 1e12:.3f} TFLOP/s")
    jobs = build_jobs(post, pre, requests, arguments)
    runs: dict[str, list[Run]] = {name: [] for name in jobs}
    for _ in range(arguments.repeats):
        for name, (_, job) in jobs.items():
            runs[name].append(measure(job, device=device))
    rows = []
    for name, (models, _) in jobs.items():
        loop = name == "published loop"
        load, width = (requests[: arguments.loop_prompts], 1) if loop else (requests, arguments.slots)
        least = roofline_seconds(post, load, models=models, slots=width, bandwidth=bandwidth, rate=rate)
        tokens = sum(request.max_new_tokens or 0 for request in load)
        rows.append(summarise(name, models, runs[name], roofline=tokens / least, device=device))
    unit = "tokens per CPU-second" if device == "cpu" else "tokens per second"
    print(f"{'engine':<22}{unit:>22}{'lowest':>9}{'highest':>9}{'x first':>8}{'peak GB':>9}{'of roofline':>13}")
    for row in rows:
        print(
            f"{row['engine']:<22}{row['rate']:>22,.0f}{row['lowest']:>9,.0f}{row['highest']:>9,.0f}"
            f"{row['rate'] / rows[0]['rate']:>8.1f}{row['peak_gb']:>9.2f}{row['roofline_share']:>12.1%}"
        )
    for graphs in ("", ", graphs"):
        if {"slots, one model" + graphs, "slots, pair" + graphs} <= jobs.keys():
            cost = _rate(rows, "slots, one model" + graphs) / _rate(rows, "slots, pair" + graphs)
            print(f"the pair costs {cost:.2f} times the single model on the slot engine{graphs}")
    if dtype != torch.float32 and arguments.agreement:
        same, before = agreement(post, pre, requests, slots=arguments.slots)
        print(f"against float32: {same:.1%} of responses equal, {before:.1%} of tokens before the first difference")
    title = f"{arguments.size}, {arguments.prompts} prompts, {arguments.slots} slots, {device}"
    plot(rows, path=arguments.output, title=title, unit=unit)
    arguments.output.with_suffix(".json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
