"""One decoding step of the slot engine: a forward pass of each model, the score, and a token for every row.

Everything is read from and written to tensors that stay where they are, and no value goes back to the host: so a
step can be queued behind the one before, and be captured as a CUDA graph.

    step = Step(backbones=backbones, combination=Plain(), state=state, decoding=decoding, vocab_size=vocab_size)
    step([Band(rows=32, columns=300), Band(rows=32, columns=120)])
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cong.decoding.backbone import Backbone
from cong.decoding.bands import Band
from cong.decoding.cache import StepPlace
from cong.decoding.choose import choose_tokens, penalize_repetition
from cong.decoding.combine import Combination
from cong.decoding.score import log_probs
from cong.decoding.state import SlotState
from cong.decoding.types import Decoding


@dataclass(frozen=True, kw_only=True)
class Step:
    """Advances rows by one token; there is a backbone for every role of the combination."""

    backbones: Sequence[Backbone]
    combination: Combination
    state: SlotState
    decoding: Decoding
    vocab_size: int
    exact: bool = False
    """Whether attention reads no column behind a row's own (`cong.decoding.varlen`)."""

    def __call__(self, bands: Sequence[Band]) -> None:
        """One token for every row of these bands, the first slots."""
        state, rows = self.state, sum(band.rows for band in bands)
        place = StepPlace(rows_B=state.index_S[:rows], position_B=state.length_S[:rows], bands=bands, exact=self.exact)
        logits = [backbone.step(state.token_S[:rows], place) for backbone in self.backbones]
        # Normalised over each model's own vocabulary, then cut to the ids that all have.
        logprobs = [log_probs(logits_BV)[:, : self.vocab_size] for logits_BV in logits]
        token_B = self._choose([logits_BV[:, : self.vocab_size] for logits_BV in logits], logprobs)
        chosen = [logprobs_BV.gather(1, token_B.unsqueeze(1)) for logprobs_BV in logprobs]
        state.record(token_B, logprob_BM=torch.cat(chosen, dim=1))

    def _choose(self, logits: Sequence[Tensor], logprobs: Sequence[Tensor]) -> Tensor:
        state, decoding, rows = self.state, self.decoding, len(logits[0])
        scores_BV = self.combination.scores(logits, logprobs, coefficient=state.coefficient_S[:rows])
        if state.seen_SV is not None:
            scores_BV = penalize_repetition(
                scores_BV, seen_BV=state.seen_SV[:rows], penalty=decoding.repetition_penalty
            )
        uniform_B = None
        if state.uniform_ST is not None:
            uniform_B = state.uniform_ST[state.index_S[:rows], state.generated_S[:rows]]
        return choose_tokens(scores_BV, decoding=decoding, uniform_B=uniform_B)
