"""From scores to tokens: repetition penalty, temperature, top-k, top-p, min-p, and a choice reproducible per row.

A row's randomness is a stream of uniform numbers that depends on nothing but its seed; step t inverts the cumulative
distribution at the t-th of them. So the text does not depend on the batch, the slot or the neighbours.

    scores_BV = penalize_repetition(scores_BV, seen_BV=seen_BV, penalty=1.2)
    token_B = choose_tokens(scores_BV, decoding=decoding, uniform_B=uniforms_BT[:, t])
"""

import math

import numpy
import torch
from torch import Tensor

from cong.decoding.types import Decoding


def row_uniforms(seed: int, count: int, *, start: int = 0) -> Tensor:
    """`count` uniform numbers in [0, 1) of a row's stream, from the one with the index `start` on; float64, CPU."""
    # A counter-based generator, because torch's on the CPU keeps only the lower 32 bits of a seed.
    stream = numpy.random.Generator(numpy.random.Philox(key=seed % 2**128))
    return torch.from_numpy(stream.random(start + count)[start:])


def penalize_repetition(scores_BV: Tensor, *, seen_BV: Tensor, penalty: float) -> Tensor:
    """Positive scores of seen tokens divided, negative ones multiplied by the penalty, as Hugging Face does."""
    # The smaller of the two is the product for a negative score and the quotient for a positive one.
    of_two = torch.minimum if penalty >= 1 else torch.maximum
    return torch.where(seen_BV, of_two(scores_BV * penalty, scores_BV / penalty), scores_BV)


def choose_tokens(scores_BV: Tensor, *, decoding: Decoding, uniform_B: Tensor | None) -> Tensor:
    """One token id per row: the argmax at temperature 0, else the inverse distribution function at `uniform_B`."""
    if decoding.temperature == 0:
        # Several times faster than argmax on a CPU; of equal scores both take the first.
        return scores_BV.max(dim=-1).indices
    assert uniform_B is not None
    scores_BV = scores_BV / decoding.temperature
    if decoding.top_k is not None:
        scores_BV = _keep_top_k(scores_BV, top_k=decoding.top_k)
    if decoding.top_p < 1:
        scores_BV = _keep_top_p(scores_BV, top_p=decoding.top_p)
    if decoding.min_p > 0:
        scores_BV = _keep_min_p(scores_BV, min_p=decoding.min_p)
    return _invert_distribution(scores_BV, uniform_B=uniform_B)


def _keep_top_k(scores_BV: Tensor, *, top_k: int) -> Tensor:
    """The `top_k` highest scores, and those that are equal to the last of them; -inf elsewhere."""
    least_B1 = scores_BV.topk(min(top_k, scores_BV.shape[-1]), dim=-1).values[..., -1:]
    return scores_BV.masked_fill(scores_BV < least_B1, -math.inf)


def _keep_top_p(scores_BV: Tensor, *, top_p: float) -> Tensor:
    """The smallest set of likeliest tokens whose probabilities reach `top_p`; -inf elsewhere."""
    sorted_BV, order_BV = scores_BV.sort(dim=-1, descending=False)
    drop_sorted_BV = sorted_BV.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
    drop_sorted_BV[..., -1] = False
    drop_BV = drop_sorted_BV.scatter(-1, order_BV, drop_sorted_BV)
    return scores_BV.masked_fill(drop_BV, -math.inf)


def _keep_min_p(scores_BV: Tensor, *, min_p: float) -> Tensor:
    """Tokens with at least `min_p` times the probability of the likeliest; -inf elsewhere."""
    probs_BV = scores_BV.softmax(dim=-1)
    return scores_BV.masked_fill(probs_BV < min_p * probs_BV.amax(dim=-1, keepdim=True), -math.inf)


def _invert_distribution(scores_BV: Tensor, *, uniform_B: Tensor) -> Tensor:
    """The first token whose cumulative probability exceeds the uniform number; never one of probability 0."""
    cumulative_BV = scores_BV.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    total_B1 = cumulative_BV[:, -1:]
    target_B1 = torch.minimum(uniform_B.unsqueeze(-1) * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
    return torch.searchsorted(cumulative_BV, target_B1, right=True).squeeze(-1)
