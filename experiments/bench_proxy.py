"""What proxy tuning costs on the slot engine, against the strong model alone and against the weak pair.

The same requests go to one model, to a pair and to an anchor that a pair tunes, in turn; what is compared are the
paired runs of one turn, so that a machine that others use, or that slows down, changes all of them. Random weights made
on the spot, ragged prompts and response lengths. Beside the measured cost the parameters of the models in those of the
anchor: what a device costs that does nothing but read weights.

    python experiments/bench_proxy.py --anchor tiny --weak tiny --output bench_proxy.json
    python experiments/bench_proxy.py --anchor 7B --weak 3B --slots 128 --output bench_proxy.json
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_decoding import PENALTY, SIZES, THRESHOLD, build_model, build_requests
from bench_tools import Run, measure, spread
from transformers.utils import logging

from cong.decoding import Decoding, Request, SlotEngine

ENGINES = {
    "anchor alone": ("anchor",),
    "weak alone": ("post",),
    "pair": ("post", "pre"),
    "proxy": ("anchor", "post", "pre"),
}
COSTS = (("proxy", "anchor alone"), ("proxy", "pair"), ("pair", "weak alone"))


def decoding_job(models: dict[str, Any], requests: Sequence[Request], *, slots: int, graphs: bool) -> Callable[[], int]:
    """Return a job that decodes all requests and counts the tokens; the engine is built within it."""
    longest = max(request.max_new_tokens or 0 for request in requests)
    decoding = Decoding(max_new_tokens=longest, repetition_penalty=PENALTY, pruning_threshold=THRESHOLD)
    # A model alone is `post` to the engine, whatever it is here.
    named = models if len(models) > 1 else {"post": next(iter(models.values()))}

    def decode() -> int:
        engine = SlotEngine(**named, tokenizer=None, decoding=decoding, slots=slots, cuda_graphs=graphs)
        return sum(completion.num_tokens for completion in engine.decode(requests))

    return decode


def seconds_per_token(run: Run, *, device: str) -> float:
    """CPU seconds on a CPU, which other processes take nothing of, and seconds elsewhere."""
    return (run.cpu_seconds if device == "cpu" else run.seconds) / run.tokens


def parameters(models: Sequence[Any]) -> int:
    return sum(model.num_parameters() for model in models)


def summary(runs: dict[str, list[Run]], models: dict[str, Any], *, device: str) -> dict[str, Any]:
    """Return rates (median, lowest, highest) and paired costs with those of the parameters."""
    times = {name: [seconds_per_token(run, device=device) for run in found] for name, found in runs.items()}
    found: dict[str, Any] = {"rates": {name: spread([1 / one for one in values]) for name, values in times.items()}}
    found["peak_gb"] = {name: max(run.peak_bytes for run in given) / 1e9 for name, given in runs.items()}
    for name, other in COSTS:
        ratios = [one / base for one, base in zip(times[name], times[other], strict=True)]
        sizes = [parameters([models[role] for role in ENGINES[one]]) for one in (name, other)]
        found[f"{name} / {other}"] = {"cost": spread(ratios), "weights": sizes[0] / sizes[1]}
    return found


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchor", choices=SIZES, default="tiny")
    parser.add_argument("--weak", choices=SIZES, default="tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--longest-prompt", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("bench_proxy.json"))
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    logging.set_verbosity_error()
    device, graphs = arguments.device, arguments.device != "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    sizes = {"anchor": arguments.anchor, "post": arguments.weak, "pre": arguments.weak}
    placed = {"dtype": dtype, "device": device}
    models = {role: build_model(size, seed=seed, **placed) for seed, (role, size) in enumerate(sizes.items())}
    requests = build_requests(arguments, vocabulary=min(model.config.vocab_size for model in models.values()))
    jobs = {
        name: decoding_job({role: models[role] for role in roles}, requests, slots=arguments.slots, graphs=graphs)
        for name, roles in ENGINES.items()
    }
    runs: dict[str, list[Run]] = {name: [] for name in jobs}
    for _ in range(arguments.repeats):
        for name, job in jobs.items():
            runs[name].append(measure(job, device=device))
    found = summary(runs, models, device=device)
    unit = "tokens per CPU-second" if device == "cpu" else "tokens per second"
    print(f"{sizes['anchor']} tuned by {sizes['post']}, {device}, {dtype}; {arguments.repeats} runs in turn")
    for name, (rate, lowest, highest) in found["rates"].items():
        peak = found["peak_gb"][name]
        print(f"{name:<14}{rate:>10,.0f} {unit} ({lowest:,.0f} to {highest:,.0f}), peak {peak:.2f} GB")
    for name, other in COSTS:
        (cost, lowest, highest), more = found[f"{name} / {other}"].values()
        print(
            f"{name} costs {cost:.2f} ({lowest:.2f} to {highest:.2f}) times {other}, for {more:.2f} times its weights"
        )
    arguments.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
