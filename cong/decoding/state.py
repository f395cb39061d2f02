"""What the slot engine knows about its rows, as tensors on the models' device with one entry per slot.

A step reads and writes only these tensors, so the host needs no value back after every token: it looks at `active`
and `generated` once every few steps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cong.decoding.choose import row_uniforms
from cong.decoding.types import Decoding, Request


class SlotState:
    """Row tensors of the slot engine. S = slots, V = vocabulary, T = decoding.max_new_tokens, M = models."""

    def __init__(
        self,
        *,
        slots: int,
        models: int,
        vocab_size: int,
        decoding: Decoding,
        stop_token_ids: frozenset[int],
        device: torch.device,
    ) -> None:
        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        steps = decoding.max_new_tokens
        self.device = device
        self.index_S = torch.arange(slots, device=device)
        self.token_S = zeros(slots, dtype=torch.long)  # the next token to feed
        self.length_S = zeros(slots, dtype=torch.long)  # cached tokens: the position at which token_S goes in
        self.generated_S = zeros(slots, dtype=torch.long)
        self.limit_S = zeros(slots, dtype=torch.long)
        self.active_S = zeros(slots, dtype=torch.bool)
        self.coefficient_S = zeros(slots, dtype=torch.float32)  # alpha of a pair, w of a pair with an anchor
        # One spare column: a finished row goes on writing behind its last token until the host sees that it is done.
        self.tokens_ST = zeros(slots, steps + 1, dtype=torch.long)
        self.logprob_STM = zeros(slots, steps + 1, models, dtype=torch.float32)
        self.uniform_ST = zeros(slots, steps + 1, dtype=torch.float64) if decoding.temperature > 0 else None
        self.seen_SV = zeros(slots, vocab_size, dtype=torch.bool) if decoding.repetition_penalty != 1 else None
        self.stops_V = zeros(vocab_size, dtype=torch.bool)
        self.stops_V[[token_id for token_id in stop_token_ids if token_id < vocab_size]] = True

    def admit(
        self,
        slots: Sequence[int],
        requests: Sequence[Request],
        limits: Sequence[int],
        *,
        coefficients: Sequence[float],
    ) -> None:
        """Put requests into slots whose cache holds the prompt without its last token, which the first step feeds."""
        slots_P = torch.tensor(slots, device=self.device)
        prompts = [request.prompt_token_ids for request in requests]
        ints_4P = torch.tensor(
            [[prompt[-1] for prompt in prompts], [len(prompt) - 1 for prompt in prompts], list(limits)],
            device=self.device,
        )
        self.token_S[slots_P], self.length_S[slots_P], self.limit_S[slots_P] = ints_4P
        self.generated_S[slots_P] = 0
        self.active_S[slots_P] = True
        given = [float(coefficient) for coefficient in coefficients]
        self.coefficient_S[slots_P] = torch.tensor(given, device=self.device)
        if self.seen_SV is not None:
            self._mark_prompts(slots_P, slots, prompts)
        if self.uniform_ST is not None:
            count = self.uniform_ST.shape[1]
            uniforms = [row_uniforms(request.seed, count, start=request.drawn) for request in requests]
            self.uniform_ST[slots_P] = torch.stack(uniforms).to(self.device)

    def _mark_prompts(self, slots_P: Tensor, slots: Sequence[int], prompts: Sequence[tuple[int, ...]]) -> None:
        assert self.seen_SV is not None
        self.seen_SV[slots_P] = False
        rows = [slot for slot, prompt in zip(slots, prompts, strict=True) for _ in prompt]
        tokens = [token for prompt in prompts for token in prompt]
        self.seen_SV[torch.tensor(rows, device=self.device), torch.tensor(tokens, device=self.device)] = True

    def record(self, token_B: Tensor, *, logprob_BM: Tensor) -> None:
        """Take one chosen token per row, with what each model gives it; rows that are not active stay as they are."""
        rows = len(token_B)
        rows_B, column_B = self.index_S[:rows], self.generated_S[:rows]
        self.tokens_ST[rows_B, column_B] = token_B
        self.logprob_STM[rows_B, column_B] = logprob_BM
        if self.seen_SV is not None:
            # Not by an index: a value that comes from the host cannot be captured in a graph.
            self.seen_SV[:rows].scatter_(1, token_B.unsqueeze(1), True)
        active_B = self.active_S[:rows]
        self.token_S[:rows] = token_B
        self.length_S[:rows] += active_B
        self.generated_S[:rows] += active_B
        active_B &= ~(self.stops_V[token_B] | (self.generated_S[:rows] >= self.limit_S[:rows]))

    def logprob_sums(self, *, slots: Sequence[int], counts: Sequence[int]) -> list[list[float]]:
        """Sums over the first tokens of every given row, one per model, all of them read by the host at once."""
        if not slots:
            return []
        count_P1 = torch.tensor(counts, device=self.device).unsqueeze(1)
        rows_PTM = self.logprob_STM[torch.tensor(slots, device=self.device), : max(counts)].double()
        column_T = torch.arange(rows_PTM.shape[1], device=self.device)
        return rows_PTM.where((column_T < count_P1).unsqueeze(-1), 0.0).sum(dim=1).tolist()

    def copy_rows(self, source_P: Tensor, target_P: Tensor) -> None:
        """Move rows to other slots."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and name not in ("index_S", "stops_V"):
                value[target_P] = value[source_P]
