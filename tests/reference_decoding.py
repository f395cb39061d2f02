"""A slow reference for contrastive decoding, written from the paper's formulas alone; used by the decoding tests.

No cache, batch 1, both models run over the whole sequence for every token; no code shared with the library.
"""

import math
import random

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def reference_scores(post_logprobs, pre_logprobs, *, alpha, threshold, official):
    """F for every token, by Eq. 7 and 8, in a Python loop over the vocabulary (lists of floats in, list out)."""
    floor = max(post_logprobs) + math.log(threshold)
    head = [value >= floor for value in post_logprobs]
    reference = list(pre_logprobs)
    if official:
        filled = [value if keep else -1e-3 for value, keep in zip(reference, head, strict=True)]
        reference = torch.tensor(filled).log_softmax(-1).tolist()
    return [
        r - (1 - alpha) * p if keep else -math.inf for r, p, keep in zip(post_logprobs, reference, head, strict=True)
    ]


@torch.no_grad()
def next_logprobs(model, tokens):
    """log pi(. | tokens) over the model's vocabulary, from a forward pass without a cache."""
    logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
    return logits.float(), logits.float().log_softmax(-1)


def reference_greedy(post, pre, prompt, *, alpha, max_new_tokens, stop_ids, penalty=1.0, threshold=0.1, official=False):
    """Greedy tokens (stop token included) and the sums of log pi_r and log pi_ref; `pre` None for a single model."""
    tokens, logprob_post, logprob_pre = list(prompt), 0.0, 0.0
    while len(tokens) - len(prompt) < max_new_tokens:
        logits, post_logprobs = next_logprobs(post, tokens)
        scores, pre_logprobs = logits.tolist(), None
        if pre is not None:
            pre_logprobs = next_logprobs(pre, tokens)[1]
            shared = min(len(post_logprobs), len(pre_logprobs))
            scores = reference_scores(
                post_logprobs[:shared].tolist(),
                pre_logprobs[:shared].tolist(),
                alpha=alpha,
                threshold=threshold,
                official=official,
            )
        for token in set(tokens):
            if token < len(scores):
                scores[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
        choice = max(range(len(scores)), key=lambda token: scores[token])
        tokens.append(choice)
        logprob_post += post_logprobs[choice].item()
        logprob_pre += pre_logprobs[choice].item() if pre_logprobs is not None else 0.0
        if choice in stop_ids:
            break
    return tokens[len(prompt) :], logprob_post, logprob_pre


STOP_IDS = [3, 11, 19]


def tiny_model(family, *, seed, vocab_size=97, **overrides):
    """A random model of 2 to 4 layers whose next-token distributions are peaked, with three stop tokens."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.4,
        "bos_token_id": 1,
        "eos_token_id": STOP_IDS,
        "pad_token_id": 0,
    }
    config = AutoConfig.for_model(family, **(settings | overrides))
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def tiny_pair(family="qwen2", **overrides):
    """A post- and a pre-alignment model: the second is the first with some noise, as alignment would leave it."""
    post, pre = tiny_model(family, seed=0, **overrides), tiny_model(family, seed=0, **overrides)
    torch.manual_seed(1)
    for weight in pre.parameters():
        weight.add_(0.1 * torch.randn_like(weight))
    return post, pre


def ragged_prompts(count, *, seed=0, longest=20, vocab_size=97):
    """Prompts of 1 to `longest` tokens without stop tokens."""
    rng = random.Random(seed)
    return [tuple(rng.randrange(20, vocab_size) for _ in range(rng.randrange(1, longest + 1))) for _ in range(count)]
