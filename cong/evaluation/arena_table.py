"""`ArenaHardTable`: WR and SC of several models that Arena-Hard's judge compared with one baseline.

    ArenaHardTable(models=(("ConG-S", Compare(responses=..., judge=ArenaHardJudge(version="v0.1"))), ("ConG", ...)))

SC compares models at their common style, so it takes all of them at once: `arena_hard.parquet` has a row per model.
"""

from dataclasses import dataclass
from typing import Any

from cong.data import Row, read_rows, write_rows
from cong.evaluation.arena_hard import Games, arena_hard
from cong.evaluation.compare import COMPARISONS, Compare
from cong.evaluation.judging.judges import ArenaHardJudge
from cong.evaluation.markdown import Measure, Style, words_and_marks
from cong.evaluation.outcome import figures, games_of, styles_of
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work
from cong.models import Model, check_model, model_dir

ARENA_HARD_TABLE = "arena_hard.parquet"


@dataclass(frozen=True, kw_only=True)
class ArenaHardTable(Stage):
    """The benchmark's table of models, each a name with its comparison, all by one judge with one baseline.

    Lengths are counted by `tokenizer`'s model, or else in words and punctuation marks; the benchmark itself counts the
    tokens of GPT-4's vocabulary (v0.1) and GPT-4o's (v2.0).
    """

    models: tuple[tuple[str, Compare], ...]
    tokenizer: Model | None = None

    def __post_init__(self) -> None:
        compared = [comparison for _, comparison in self.models]
        names = [name for name, _ in self.models]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"models = {names}: style control takes at least two, each with a name of its own")
        if not all(isinstance(one.judge, ArenaHardJudge) for one in compared):
            raise ValueError("an ArenaHardTable takes comparisons by an ArenaHardJudge")
        if len({(one.judge, one.baseline.fingerprint) for one in compared}) > 1:
            raise ValueError("an ArenaHardTable takes comparisons by one judge with one baseline")

    def label(self) -> str:
        return f"{self.models[0][1].judge},{len(self.models)}_models"

    def check(self) -> None:
        if self.tokenizer is not None:
            check_model(self.tokenizer)

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def run(self, ctx: Context) -> None:
        judge, measure = self.models[0][1].judge, self._measure(ctx)
        assert isinstance(judge, ArenaHardJudge)
        games: list[Games] = []
        styles: dict[tuple[str, str], Style] = {}
        for name, comparison in self.models:
            rows = read_rows(ctx.path(comparison) / COMPARISONS)
            games += games_of(rows, model=name)
            styles |= styles_of(rows, model=name, measure=measure)
        found = arena_hard(games, version=judge.version, styles=styles)
        table: list[Row] = [
            {"model": name, **figures("wr", one.win_rate), **figures("sc", one.style_controlled)}
            for name, one in found.items()
        ]
        write_rows(ctx.out / ARENA_HARD_TABLE, table)
        ctx.summary(models=len(table))

    def figures_of(self, comparison: Compare, rows: list[Row]) -> dict[str, Any] | None:
        """Return the figures of a comparison in the rows of this table, None where it is not among its models."""
        names = (name for name, one in self.models if one.fingerprint == comparison.fingerprint)
        if (name := next(names, None)) is None:
            return None
        row = next(row for row in rows if row["model"] == name)
        return {"SC": row["sc"], "WR (AH)": row["wr"]}

    def _measure(self, ctx: Context) -> Measure:
        if self.tokenizer is None:
            return words_and_marks
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model_dir(ctx, self.tokenizer))
        return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
