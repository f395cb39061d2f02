"""`Evaluate`: what a model's scored responses are worth, with standard errors by bootstrap over prompts."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cong.data import RESPONSES, SCORES, Row, read_rows, write_rows
from cong.data.finite import check_finite
from cong.evaluation.evaluation import Evaluation
from cong.graph.fingerprint import LATER
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work

EVALUATION = "evaluation.parquet"
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Evaluate(Evaluation):
    """Mean reward, length and, where asked for, win rate against an opponent, implicit reward per token, and fluency.

    `scored` and `opponent` are scores of responses to the same prompts by one judge; `implicit` are scores of the
    responses of `scored` by the weak pair, or contrastive responses, which carry them; `fluency` are their scores by
    the likelihood under an unaligned model: its measure is the log-probability per token, in nats. Several samples of a
    prompt are averaged first: prompts are what is drawn.
    The summary holds, per measure, its mean, `_se` and the 95 % percentile interval `_low`, `_high`.
    """

    scored: Stage
    opponent: Stage | None = None
    implicit: Stage | None = None
    seed: int = 0
    fluency: Stage | None = field(default=None, metadata=LATER)

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def judged(self, directory: Path) -> list[Row]:
        return [row for row in read_rows(directory / EVALUATION) if row.get("response") is not None]

    @property
    def evaluated_model(self) -> Any:
        return self.scored.evaluated_model

    def run(self, ctx: Context) -> None:
        rows = _good_rows(ctx, self.scored)
        measures = {
            "reward": _per_prompt(rows, lambda row: row["reward"]),
            "tokens": _per_prompt(rows, lambda row: row["num_tokens"]),
        }
        if self.opponent is not None:
            measures["win_rate"] = _wins(rows, _good_rows(ctx, self.opponent))
        if self.implicit is not None:
            implicit = _implicit_rows(ctx, self.implicit)
            measures["implicit_reward"] = _per_prompt(implicit, lambda row: row["reward"])
            measures["implicit_per_token"] = _per_prompt(implicit, lambda row: row["reward"] / row["num_tokens"])
        if self.fluency is not None:
            likely = _good_rows(ctx, self.fluency)
            measures["fluency"] = _per_prompt(likely, lambda row: row["reward"] / row["num_tokens"])
        write_rows(ctx.out / EVALUATION, _table(rows, measures))
        ctx.summary(prompts=len(measures["reward"]), failed_rows=self._failed(ctx))
        for name, values in measures.items():
            ctx.summary(**bootstrap(name, list(values.values()), seed=self.seed))

    def _failed(self, ctx: Context) -> int:
        return sum(row["reward"] is None for row in read_rows(ctx.path(self.scored) / SCORES))


def bootstrap(name: str, values: list[float], *, seed: int) -> dict[str, float]:
    """Return mean, standard error and 95 % interval of `values`, by a percentile bootstrap of the mean.

    Raise `ValueError` for no values, and for one that is NaN or infinite: neither has a mean.
    """
    import numpy as np
    from scipy import stats

    if not values or not np.isfinite(values).all():
        raise ValueError(f"{name} has no mean: of {len(values)} values {int(np.isfinite(values).sum())} are finite")
    mean = float(np.mean(values))
    if len(values) < 2 or np.ptp(values) == 0:
        return {name: mean, f"{name}_se": 0.0, f"{name}_low": mean, f"{name}_high": mean}
    result = stats.bootstrap(
        (np.asarray(values),),
        np.mean,
        n_resamples=RESAMPLES,
        method="percentile",
        batch=100,
        rng=np.random.default_rng(seed),
    )
    low, high = (float(bound) for bound in result.confidence_interval)
    return {name: mean, f"{name}_se": float(result.standard_error), f"{name}_low": low, f"{name}_high": high}


def _good_rows(ctx: Context, stage: Stage) -> list[Row]:
    rows = [row for row in read_rows(ctx.path(stage) / SCORES) if row["reward"] is not None]
    check_finite(rows, columns=("reward",), source=stage.title)
    if not rows:
        raise RuntimeError(f"{stage.title} holds no reward")
    return rows


def _implicit_rows(ctx: Context, stage: Stage) -> list[Row]:
    if (ctx.path(stage) / SCORES).exists():
        return _good_rows(ctx, stage)
    rows = read_rows(ctx.path(stage) / RESPONSES, columns=("prompt_id", "num_tokens", "implicit_reward", "error"))
    good = [row | {"reward": row["implicit_reward"]} for row in rows if row["error"] is None]
    check_finite(good, columns=("implicit_reward",), source=stage.title)
    if not good:
        raise RuntimeError(f"{stage.title} holds no response")
    return good


def _per_prompt(rows: list[Row], value) -> dict[str, float]:
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        groups[row["prompt_id"]].append(value(row))
    return {prompt_id: sum(group) / len(group) for prompt_id, group in groups.items()}


def _wins(rows: list[Row], opponent: list[Row]) -> dict[str, float]:
    """Return the share of the opponent's responses that each prompt's responses beat; a tie counts one half."""
    theirs: dict[str, list[float]] = defaultdict(list)
    for row in opponent:
        theirs[row["prompt_id"]].append(row["reward"])
    faced = [row for row in rows if row["prompt_id"] in theirs]
    if not faced:
        raise RuntimeError("the opponent has no response to any of these prompts")
    return _per_prompt(faced, lambda row: _share_beaten(row["reward"], theirs[row["prompt_id"]]))


def _share_beaten(reward: float, others: list[float]) -> float:
    return sum((reward > other) + 0.5 * (reward == other) for other in others) / len(others)


def _table(rows: list[Row], measures: dict[str, dict[str, float]]) -> list[Row]:
    first = {row["prompt_id"]: row for row in reversed(rows)}
    return [
        {
            "prompt_id": prompt_id,
            "prompt": row["prompt"],
            "response": row["response"],
            **{name: values.get(prompt_id) for name, values in measures.items()},
        }
        for prompt_id, row in sorted(first.items())
    ]
