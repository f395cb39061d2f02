"""The score F of contrastive decoding (Eq. 7, 8 and 10), as one function.

    F(y) = (1 - alpha) * log(pi_r(y) / pi_ref(y)) + alpha * log pi_r(y) = log pi_r(y) - (1 - alpha) * log pi_ref(y)

for y in V_head = {y : pi_r(y) >= lambda * max_w pi_r(w)}, and -inf elsewhere. Appendix D of the paper rewrites the
distribution as pi_r * exp((1 - alpha) * r) with r = log pi_r - log pi_ref; that is not Eq. 13 (it holds a factor
pi_r^(1 - alpha) more), so this module follows Eq. 7 and 10.

    scores_BV = contrastive_scores(log_probs(post_logits_BV), log_probs(pre_logits_BV),
                                   alpha=0.5, pruning_threshold=0.1)

Beside it the scores of proxy tuning, which a strong model is the anchor of.
"""

import math
from typing import Literal

import torch
from torch import Tensor

# Stands for log 0 where a difference of two infinities would give NaN: finite, and below every real log-probability.
LOG_ZERO = -1e30

# What the published code writes into log pi_ref of a pruned token before it normalises a second time.
OFFICIAL_PRUNED_LOGPROB = -1e-3


def log_probs(logits_BV: Tensor) -> Tensor:
    """log softmax over the last dimension, in float32 whatever the dtype of the logits."""
    return torch.log_softmax(logits_BV, dim=-1, dtype=torch.float32)


def head_mask(post_logprobs_BV: Tensor, *, pruning_threshold: float) -> Tensor:
    """V_head of Eq. 8 as booleans."""
    return post_logprobs_BV >= _head_floor(post_logprobs_BV, pruning_threshold)


def _head_floor(post_logprobs_BV: Tensor, pruning_threshold: float) -> Tensor:
    """The least log pi_r in V_head, shape (B, 1). It comes from `amax`: sorting the vocabulary is not needed."""
    log_threshold = math.log(pruning_threshold) if pruning_threshold > 0 else -math.inf
    # A token of probability 0 is never in V_head, not even when the threshold is 0.
    return (post_logprobs_BV.amax(dim=-1, keepdim=True) + log_threshold).clamp_min(LOG_ZERO)


def contrastive_scores(
    post_logprobs_BV: Tensor,
    pre_logprobs_BV: Tensor,
    *,
    alpha: float | Tensor,
    pruning_threshold: float,
    scores: Literal["formula", "official"] = "formula",
) -> Tensor:
    """F for every token, float32, -inf outside V_head; `alpha` is one number or a tensor of one per row (shape B).

    `scores="official"` reproduces the scores of the published code, not what lies around them (sampling, a second BOS,
    stripped texts: see `cong.generation.ContrastiveGenerate`). That code sets log pi_ref of pruned tokens to -1e-3 and
    applies log_softmax to log pi_ref once more, which adds (1 - alpha) * c to F with c near log V. The constant changes
    nothing by itself, but a repetition penalty divides positive and multiplies negative scores.

    A token with pi_ref = 0 and pi_r > 0 has an infinite ratio: it gets a huge finite score, so nothing becomes NaN.
    """
    post_BV = post_logprobs_BV.float()
    floor_B1 = _head_floor(post_BV, pruning_threshold)
    reference_BV = pre_logprobs_BV.float().clamp_min(LOG_ZERO)
    if scores == "official":
        head_BV = post_BV >= floor_B1
        reference_BV = torch.log_softmax(torch.where(head_BV, reference_BV, OFFICIAL_PRUNED_LOGPROB), dim=-1)
    if isinstance(alpha, Tensor):
        alpha = alpha.float().unsqueeze(-1)
    # +inf in V_head, where the difference is at least +0, and -inf elsewhere; `where` takes a CPU three times as long.
    bound_BV = torch.copysign(torch.full_like(floor_B1, math.inf), post_BV - floor_B1)
    return torch.minimum(post_BV - (1 - alpha) * reference_BV, bound_BV)


def proxy_scores(
    anchor_logits_BV: Tensor, post_logits_BV: Tensor, pre_logits_BV: Tensor, *, weight: float | Tensor
) -> Tensor:
    """z + w (z_r - z_ref) in float32: the logits of proxy tuning (Liu et al., 2024, arXiv:2401.08565).

    Emulated fine-tuning (Mitchell et al., 2023, arXiv:2310.12962) has the same softmax. Logits, not log-probabilities:
    at w = 0 the scores are the anchor's own logits, also for a repetition penalty, which a constant per row would
    change. `weight` is one number or a tensor of one per row (shape B).

    A logit of -inf counts as `LOG_ZERO` in the difference, so nothing becomes NaN.
    """
    if isinstance(weight, Tensor):
        weight = weight.float().unsqueeze(-1)
    post_BV, pre_BV = (logits_BV.float().clamp_min(LOG_ZERO) for logits_BV in (post_logits_BV, pre_logits_BV))
    return anchor_logits_BV.float() + weight * (post_BV - pre_BV)
