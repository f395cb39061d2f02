"""Log-probabilities of given responses: one teacher-forced pass, no decoding.

The difference between two models is the implicit reward of a response:

    post = teacher_forced_logprobs(model, prompts=[(5, 6)], completions=[(7, 8, eos)], batch_size=8)
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cong.models.memory import SCORED_TOKENS


@torch.inference_mode()
def teacher_forced_logprobs(
    model: PreTrainedModel,
    *,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    batch_size: int,
    stop_token_id: int | None = None,
    most_tokens: int | None = None,
) -> list[float]:
    """Sum of log pi(completion | prompt) in nats for every row; a `stop_token_id` is appended to each completion.

    Without it the completions are scored as they are. Rows of similar length are batched together, at most `batch_size`
    of them and `most_tokens` padded tokens of completions, whose logits are alive at once (None: `SCORED_TOKENS`).
    """
    most = SCORED_TOKENS["cpu" if model.device.type == "cpu" else "cuda"] if most_tokens is None else most_tokens
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    end = () if stop_token_id is None else (stop_token_id,)
    rows = [(tuple(p), (*c, *end)) for p, c in zip(prompts, completions, strict=True)]
    empty = next((index for index, (prompt, _) in enumerate(rows) if not prompt), None)
    if empty is not None:
        raise ValueError(f"the prompt of row {empty} is empty; it must have at least 1 token")
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index][1]), len(rows[index][0])))
    sums = [0.0] * len(rows)
    for batch in _batches(order, [len(completion) for _, completion in rows], rows=batch_size, tokens=most):
        for index, value in zip(batch, _batch_logprobs(model, [rows[index] for index in batch]), strict=True):
            sums[index] = value
    return sums


def _batches(order: Sequence[int], lengths: Sequence[int], *, rows: int, tokens: int) -> Iterator[list[int]]:
    """Consecutive indices of rising length, as many as fit; a row that is too long stands alone."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) == rows or (len(batch) + 1) * lengths[index] > tokens):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _batch_logprobs(model: PreTrainedModel, rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[float]:
    """One pass over left-padded rows, so that the vocabulary head runs on the completions' positions alone."""
    longest = max(len(completion) for _, completion in rows)
    if longest == 0:
        return [0.0] * len(rows)
    tokens_BL, mask_BL = left_pad([prompt + completion for prompt, completion in rows], device=model.device)
    network: Any = model
    logits_BCV = network(
        input_ids=tokens_BL,
        attention_mask=mask_BL,
        position_ids=(mask_BL.cumsum(dim=1) - 1).clamp_min(0),
        use_cache=False,
        logits_to_keep=longest + 1,
    ).logits[:, -longest - 1 : -1]
    sums = []
    for logits_CV, tokens_L, (_, completion) in zip(logits_BCV, tokens_BL, rows, strict=True):
        count = len(completion)
        logprobs_CV = logits_CV[longest - count :].float().log_softmax(dim=-1)
        chosen_C = tokens_L[len(tokens_L) - count :].unsqueeze(1)
        sums.append(logprobs_CV.gather(1, chosen_C).double().sum().item())
    return sums


def left_pad(rows: Sequence[Sequence[int]], *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask (B, L), padded on the left with copies of each row's own first token.

    A copy adds no new token to the row: Hugging Face's repetition penalty looks at padding too.
    """
    longest = max(len(row) for row in rows)
    padded = [[row[0]] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(padded, device=device), torch.tensor(mask, device=device)
