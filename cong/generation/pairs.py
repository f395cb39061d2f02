"""Preference pairs: best against worst of several candidates, or chosen against rejected of two stages.

Both write `pairs.parquet` (prompt_id, prompt, chosen, rejected, and the rewards where they are known).
"""

from collections import defaultdict
from dataclasses import dataclass

from cong.data import PAIRS, RESPONSES, SCORES, Row, by_prompt, read_rows, write_rows
from cong.graph.stage import Context, Stage


@dataclass(frozen=True, kw_only=True)
class BestAgainstWorst(Stage):
    """Of every prompt's candidates the one with the highest reward against the one with the lowest (appendix C.2).

    A prompt is dropped, and counted, when its candidates are all the same text or all have the same reward.
    """

    scored: Stage

    def run(self, ctx: Context) -> None:
        candidates: dict[str, list[Row]] = defaultdict(list)
        for row in read_rows(ctx.path(self.scored) / SCORES):
            if row["reward"] is not None:
                candidates[row["prompt_id"]].append(row)
        extremes = [_extremes(rows) for rows in candidates.values()]
        different = [pair for pair in extremes if pair["chosen"] != pair["rejected"]]
        pairs = [pair for pair in different if pair["chosen_reward"] > pair["rejected_reward"]]
        write_rows(ctx.out / PAIRS, _some(pairs))
        identical, tied = len(extremes) - len(different), len(different) - len(pairs)
        ctx.summary(pairs=len(pairs), dropped_identical=identical, dropped_tied=tied)


@dataclass(frozen=True, kw_only=True)
class PreferencePairs(Stage):
    """The responses of `chosen` against those of `rejected` to the same prompts, joined by prompt_id (Eq. 12).

    Pairs of two equal texts carry no preference; they are dropped and counted, as are prompts that one side lacks.
    """

    chosen: Stage
    rejected: Stage

    def run(self, ctx: Context) -> None:
        chosen, rejected = (_responses(ctx, side) for side in (self.chosen, self.rejected))
        common = [prompt_id for prompt_id in chosen if prompt_id in rejected]
        pairs = [_pair(chosen[prompt_id], rejected[prompt_id]) for prompt_id in common]
        different = [pair for pair in pairs if pair["chosen"] != pair["rejected"]]
        write_rows(ctx.out / PAIRS, _some(different))
        ctx.summary(
            pairs=len(different),
            dropped_identical=len(pairs) - len(different),
            dropped_unmatched=len(chosen) + len(rejected) - 2 * len(common),
        )


@dataclass(frozen=True, kw_only=True)
class PairAgreement(Stage):
    """Diagnosis: in which share of the pairs does a judge prefer the chosen response?

    Stage II can only help where chosen really beats rejected. `chosen` and `rejected` are scores of both sides by one
    judge. It changes no pair, so it is no input of the training.
    """

    pairs: PreferencePairs
    chosen: Stage
    rejected: Stage

    def run(self, ctx: Context) -> None:
        chosen, rejected = (by_prompt(read_rows(ctx.path(side) / SCORES)) for side in (self.chosen, self.rejected))
        ids = [row["prompt_id"] for row in read_rows(ctx.path(self.pairs) / PAIRS, columns=["prompt_id"])]
        gaps = [chosen[prompt_id]["reward"] - rejected[prompt_id]["reward"] for prompt_id in ids]
        wins = sum(gap > 0 for gap in gaps) + 0.5 * sum(gap == 0 for gap in gaps)
        ctx.summary(pairs=len(gaps), chosen_better=wins / len(gaps), mean_gap=sum(gaps) / len(gaps))

    def label(self) -> str:
        return self.chosen.label()


def _extremes(rows: list[Row]) -> Row:
    best = max(rows, key=lambda row: (row["reward"], -row["sample"]))
    worst = min(rows, key=lambda row: (row["reward"], row["sample"]))
    return {**_pair(best, worst), "chosen_reward": best["reward"], "rejected_reward": worst["reward"]}


def _pair(chosen: Row, rejected: Row) -> Row:
    return {
        "prompt_id": chosen["prompt_id"],
        "prompt": chosen["prompt"],
        "chosen": chosen["response"],
        "rejected": rejected["response"],
    }


def _responses(ctx: Context, stage: Stage) -> dict[str, Row]:
    rows = read_rows(ctx.path(stage) / RESPONSES, columns=("prompt_id", "prompt", "response", "error"))
    return by_prompt(row for row in rows if row["error"] is None)


def _some(pairs: list[Row]) -> list[Row]:
    if not pairs:
        raise RuntimeError("no preference pair is left: all responses of a prompt are the same, or their rewards are")
    return pairs
