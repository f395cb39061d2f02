"""What a probe is worth on prompts that it was not trained on: it changes no data, and is no input of a training.

ProbeQuality(probe=probe, scored=smoothed, truth=Score(responses=answers, judge=reward), share=0.5)
"""

import json
from dataclasses import dataclass

from cong.data import Row
from cong.errors import NothingLeft
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work
from cong.probing.choose import Scored, known_scores, top_rows
from cong.probing.probe import PROBE, Probe
from cong.scoring import Score


@dataclass(frozen=True, kw_only=True)
class ProbeQuality(Stage):
    """AUC and purity of scores of responses to prompts without labels, by the true reward of all.

    `auc` is the probability that a right response has a higher score than a wrong one (ties count one half), right as
    the probe has it; it is left out where all are right, or none. `purity` is the share of right ones among those that
    are kept: the best `share`, or all above the `threshold`; `base_rate` that among all. `reward_kept` and `reward_all`
    are mean true rewards.
    """

    probe: Probe
    scored: Scored
    """Of the probe's responses; it need not be the probe: smoothed scores, or a control."""
    truth: Score
    share: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if (self.share is None) == (self.threshold is None):
            raise ValueError("what is kept is said by a share or by a threshold")
        if not self.probe.responses == self.scored.responses == self.truth.responses:
            raise ValueError("probe, scores and truth are of different responses")
        labelled, every = self.probe.labels.prompt_count(), self.truth.prompt_count()
        if 0 < every <= labelled:
            raise ValueError(f"labels = {labelled} of {every} prompts: none is left to judge the probe by")

    def label(self) -> str:
        kept = f"share={self.share:g}" if self.share is not None else f"above={self.threshold:g}"
        return f"{kept},{self.scored.label()}"

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def run(self, ctx: Context) -> None:
        given = json.loads((ctx.path(self.probe) / PROBE).read_text())
        labelled = set(given["labelled"])
        truth = {row["row_id"]: row["reward"] for row in known_scores(ctx, self.truth)}
        rows = [
            row for row in known_scores(ctx, self.scored) if row["row_id"] in truth and row["prompt_id"] not in labelled
        ]
        if not rows:
            raise NothingLeft(f"{self.probe.title}: all prompts are labelled, and none is left to judge the probe by")
        kept = set(self._kept(rows))
        right = {row["row_id"]: truth[row["row_id"]] > given["bar"] for row in rows}
        ctx.summary(rows=len(rows), kept=len(kept), base_rate=_mean(list(right.values())))
        ctx.summary(reward_all=_mean([truth[row_id] for row_id in right]), **_auc(rows, right))
        if kept:
            ctx.summary(purity=_mean([right[one] for one in kept]), reward_kept=_mean([truth[one] for one in kept]))

    def _kept(self, rows: list[Row]) -> list[str]:
        if self.share is not None:
            return top_rows(rows, share=self.share)
        return [row["row_id"] for row in rows if row["reward"] > self.threshold]


def _auc(rows: list[Row], right: dict[str, bool]) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    truth = [right[row["row_id"]] for row in rows]
    return {"auc": float(roc_auc_score(truth, [row["reward"] for row in rows]))} if 0 < sum(truth) < len(truth) else {}


def _mean(values: "list[bool] | list[float]") -> float:
    return sum(values) / len(values)
