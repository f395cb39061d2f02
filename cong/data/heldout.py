"""Prompts that are held out of a set, and the rest of it."""

import hashlib
from dataclasses import dataclass
from typing import Literal

from cong.data.rows import PROMPTS, read_rows, write_rows
from cong.errors import UserError
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work


@dataclass(frozen=True, kw_only=True)
class HeldOut(Stage):
    """A share of the prompts of another source, chosen by a digest of their ids, or all of the others.

    Neither the order of the file nor a prompt that is added to it changes on which side a prompt lies, but for those
    at the border.
    """

    prompts: Stage
    part: Literal["held out", "rest"]
    share: float = 0.1
    most: int = 500

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.most < 1:
            raise ValueError(f"share = {self.share} and most = {self.most}: a part of the prompts is to be held out")

    def label(self) -> str:
        return self.part.replace(" ", "-")

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def row_count(self) -> int:
        count = self.prompts.row_count()
        held = self._count(count)
        return held if self.part == "held out" else count - held

    def run(self, ctx: Context) -> None:
        rows = read_rows(ctx.path(self.prompts) / PROMPTS)
        if len(rows) < 2:
            raise UserError(f"{self.prompts.title} holds {len(rows)} prompt, and one is to be held out")
        first = sorted(rows, key=lambda row: hashlib.sha256(row["prompt_id"].encode()).digest())
        held = {row["prompt_id"] for row in first[: self._count(len(rows))]}
        chosen = [row for row in rows if (row["prompt_id"] in held) == (self.part == "held out")]
        write_rows(ctx.out / PROMPTS, chosen)
        ctx.summary(prompts=len(chosen))

    def _count(self, prompts: int) -> int:
        return min(self.most, max(1, round(self.share * prompts))) if prompts else 0
