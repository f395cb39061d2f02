"""Whether real language models decode as plain loops of transformers do: every token, and log-probabilities.

    cong mirror checkpoints && python experiments/check_real_models.py checkpoints

For every model a pair with a perturbed copy, and a pair with a LoRA adapter on one set of weights. The loop knows
nothing of `cong.decoding`: two models, one row, greedy, F of Eq. 7 and 8 with the repetition penalty on it, float32.
"""

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from cong.decoding import Decoding, GenerateEngine, Request, SlotEngine, load_model, load_pair
from cong.models.chat import encode_chat, load_tokenizer

MODELS = ("HuggingFaceTB/SmolLM2-135M-Instruct", "google/gemma-3-270m")
THRESHOLD = 0.1
TOLERANCE = 1e-4
"""Of a response's log-probability in nats, a sum over its tokens."""
QUESTIONS = (
    "What is a good name for a small bakery?",
    "Explain in two sentences why the sky is blue.",
    "Write a haiku about rain on a tin roof.",
    "How do I boil an egg so that the yolk stays soft?",
    "List three reasons to learn a second language.",
    "My train was cancelled. What should I do?",
    "Translate 'good morning' into French and German.",
    "What is 17 times 6?",
    "Write a Python function that reverses a string.",
    "Who wrote Pride and Prejudice, and what is it about?",
    "Give me a short recipe with lentils.",
    "Is it better to run in the morning or in the evening?",
    "Describe a lighthouse to somebody who has never seen the sea.",
    "What does a heat pump do?",
    "Ask me a riddle.",
)
# One that is longer than the 512 tokens of Gemma's sliding windows.
LONG = "Sum up this list in one sentence: " + ", ".join(f"item {n} costs {7 * n % 89} euros" for n in range(48)) + "."


@torch.no_grad()
def plain_loop(
    post: Any, pre: Any, prompt: tuple[int, ...], *, alpha: float, penalty: float, ends: set[int], length: int
) -> tuple[list[int], float, float]:
    """Return the greedy tokens, and the log-probabilities of them under both models."""
    models, caches = (post, pre), (DynamicCache(config=post.config), DynamicCache(config=pre.config))
    tokens, given, sums = list(prompt), list(prompt), [0.0, 0.0]
    for _ in range(length):
        logps = []
        for model, cache in zip(models, caches, strict=True):
            logits = model(input_ids=torch.tensor([given]), past_key_values=cache, logits_to_keep=1).logits
            logps.append(logits[0, -1].float().log_softmax(-1))
        floor = logps[0].max() + torch.tensor(THRESHOLD).log()
        scores = torch.where(logps[0] >= floor, logps[0] - (1 - alpha) * logps[1], -torch.inf)
        seen = torch.tensor(sorted(set(tokens)))
        scores[seen] = torch.where(scores[seen] < 0, scores[seen] * penalty, scores[seen] / penalty)
        chosen = int(scores.argmax())
        sums = [total + float(logp[chosen]) for total, logp in zip(sums, logps, strict=True)]
        tokens.append(chosen)
        given = [chosen]
        if chosen in ends:
            break
    return tokens[len(prompt) :], sums[0], sums[1]


def perturbed(model: Any) -> Any:
    """Change every weight by 3 % of its size at random: another policy that still writes text."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + 0.03 * torch.randn(weight.shape, generator=generator))
    return model


def write_adapter(base: Path, target: Path) -> None:
    """Write a LoRA adapter on all linear layers whose product is about 3 % of the weights."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=8, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapted: Any = get_peft_model(load_model(base, dtype="float32", device="cpu"), config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.mul_(0.1)
    adapted.save_pretrained(target)


def pairs(base: Path, adapter: Path, kind: str) -> list[tuple[Any, Any]]:
    """Return the pair for the engines, and the same pair, loaded by transformers and peft alone, for the loop."""
    from peft import PeftModel

    def plain() -> Any:
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()

    if kind == "adapter":
        ours = load_pair(post=adapter, pre=base, dtype="float32", device="cpu")
        return [ours, (PeftModel.from_pretrained(plain(), adapter).eval(), plain())]
    load = {"dtype": "float32", "device": "cpu"}
    return [(perturbed(load_model(base, **load)), load_model(base, **load)), (perturbed(plain()), plain())]


def compare(base: Path, kind: str, adapter: Path, *, prompts: int, length: int) -> bool:
    """Print a line per engine and setting; return whether all agree."""
    tokenizer = load_tokenizer(base)
    asked = [[{"role": "user", "content": text}] for text in (LONG, *QUESTIONS)[:prompts]]
    prompted = [encode_chat(tokenizer, messages, open_turn=True) for messages in asked]
    (post, pre), loop = pairs(base, adapter, kind)
    good, plain = True, {}
    for penalty, alpha in itertools.product((1.0, 1.2), (0.0, 0.5, 1.0)):
        decoding = Decoding(max_new_tokens=length, repetition_penalty=penalty, pruning_threshold=THRESHOLD)
        engines = [
            SlotEngine(post=post, pre=pre, tokenizer=tokenizer, decoding=decoding, slots=prompts),
            GenerateEngine(post=post, pre=pre, tokenizer=tokenizer, decoding=decoding, batch_size=4),
        ]
        ends = set(engines[0].stop_token_ids)
        wanted = [plain_loop(*loop, ids, alpha=alpha, penalty=penalty, ends=ends, length=length) for ids in prompted]
        # Equal texts under both penalties would say nothing of the penalty.
        before = plain.setdefault(alpha, wanted)
        changed = sum(one[0] != other[0] for one, other in zip(wanted, before, strict=True))
        requests = [Request(row_id=str(n), prompt_token_ids=ids, alpha=alpha) for n, ids in enumerate(prompted)]
        for engine in engines:
            answers = {int(answer.row_id): answer for answer in engine.decode(iter(requests))}
            good &= tell(base.name, kind, type(engine).__name__, penalty, alpha, wanted, answers, changed)
    return good


def tell(
    name: str, kind: str, engine: str, penalty: float, alpha: float, wanted: list, answers: dict, changed: int
) -> bool:
    """Print how many responses agree, by how much log-probabilities differ at most, and what the penalty changed."""
    same, gap = 0, 0.0
    for number, (tokens, post, pre) in enumerate(wanted):
        answer = answers[number]
        ended = [] if answer.stop_token_id is None else [answer.stop_token_id]
        same += [*answer.token_ids, *ended] == tokens
        gap = max(gap, abs(answer.logprob_post - post), abs(answer.logprob_pre - pre))
    count = sum(len(tokens) for tokens, _, _ in wanted)
    numbers = f"{penalty:7.1f} {alpha:5.1f} {same:3d} of {len(wanted):2d} {count:7d} {gap:11.1e} {changed:8d}"
    print(f"{name:24} {kind:9} {engine:15} {numbers}", flush=True)
    return same == len(wanted) and gap <= TOLERANCE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mirror", type=Path, help="what `cong mirror` wrote into")
    parser.add_argument("--model", action="append", help=f"of {', '.join(MODELS)}; default is both")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=16, help="new tokens at most")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    good, started = True, time.monotonic()
    print(f"{'model':24} {'pair':9} {'engine':15} penalty alpha    equal  tokens   log-prob.  changed")
    with tempfile.TemporaryDirectory() as scratch:
        for model in chosen.model or MODELS:
            base, adapter = chosen.mirror / model, Path(scratch) / model
            write_adapter(base, adapter)
            for kind in ("perturbed", "adapter"):
                good &= compare(base, kind, adapter, prompts=chosen.prompts, length=chosen.tokens)
    print(f"{'all equal' if good else 'NOT EQUAL'}; {time.monotonic() - started:.0f} s")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
