"""Which tokens each row has seen, for the repetition penalty of a batch whose rows come, go and change places.

seen = SeenTokens(width=vocab_size, device=device)
seen_BV = seen.of([("a", prompt_token_ids, output_token_ids), ...])   # marks only what is new since the last time
seen.forget(["a"])
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class _Row:
    line: int
    marked: int = 0  # output tokens that are marked


class SeenTokens:
    """Booleans (rows, V) that are kept between steps: a token costs one mark, not a count of the whole response."""

    def __init__(self, *, width: int, device: torch.device) -> None:
        self._table_RV = torch.zeros(0, width, dtype=torch.bool, device=device)
        self._rows: dict[str, _Row] = {}
        self._free: list[int] = []

    @torch.inference_mode()
    def of(self, rows: Sequence[tuple[str, Sequence[int], Sequence[int]]]) -> Tensor:
        """Return booleans (B, V) for rows of name, prompt and output tokens; an output only ever grows."""
        lines: list[int] = []
        tokens: list[int] = []
        for name, prompt, output in rows:
            new = output[self._rows[name].marked :] if name in self._rows else [*prompt, *output]
            row = self._rows.get(name) or self._add(name)
            row.marked = len(output)
            lines += [row.line] * len(new)
            tokens += new
        device = self._table_RV.device
        if tokens:
            line_N, token_N = torch.tensor([lines, tokens], device=device)
            self._table_RV[line_N, token_N] = True
        return self._table_RV[torch.tensor([self._rows[name].line for name, _, _ in rows], device=device)]

    @torch.inference_mode()
    def forget(self, names: Iterable[str]) -> None:
        """Drop rows; those that are not known are none."""
        lines = [self._rows.pop(name).line for name in names if name in self._rows]
        self._table_RV[lines] = False
        self._free += lines

    def _add(self, name: str) -> _Row:
        if not self._free:
            rows, width = self._table_RV.shape
            more = max(rows, 64)
            self._table_RV = torch.cat([self._table_RV, self._table_RV.new_zeros(more, width)])
            self._free = list(range(rows, rows + more))
        row = self._rows[name] = _Row(line=self._free.pop())
        return row
