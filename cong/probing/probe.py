"""Probes: from hidden states, whether an answer is right, learned on a small labelled part of the answers.

    part = Labelled(responses=answers, count=100)
    probe = Probe(states=HiddenStates(model=strong, data=answers, of="prompt"), labels=Score(responses=part, judge=...))
    Smoothed(scored=probe, neighbours=10, share=0.5)

P(IK) (Lang, Huang & Li, 2025, arXiv:2511.14166) is a probe on the strong model's state at the prompt, trust
(arXiv:2606.01000) one on the weak model's state at the end of its label. Both write `scores.parquet` as `Score` does,
with a probability in `reward`, so whatever reads scores reads it. Only the labelled part is ever judged.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cong.data import RESPONSES, SCORES, Row, copy_rows, read_rows, write_rows
from cong.data.finite import check_finite
from cong.errors import NothingLeft
from cong.graph.journal import replace_text
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import Work
from cong.models.work import response_bytes
from cong.probing.states import STATES, HiddenStates, read_states
from cong.scoring import Score
from cong.scoring.scored import KEPT, scored

if TYPE_CHECKING:
    import numpy as np

PROBE = "probe.json"
"""What a probe was trained with: `bar`, and the ids of the labelled prompts."""
UNREAD = "the model cannot read this response: it has no hidden state"
HIDDEN = 64
"""Width of the one hidden layer of an MLP."""
Kind = Literal["logistic", "mlp"]
Probability = Callable[["np.ndarray"], "np.ndarray"]
"""From states (N x D) to probabilities (N)."""


@dataclass(frozen=True, kw_only=True)
class Labelled(Stage):
    """The responses to `count` prompts, chosen by a digest of seed and prompt_id: what may be judged for a probe.

    All stages over the same prompts with one seed choose the same prompts.
    """

    responses: Stage
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"labels = {self.count} is below 1")

    def label(self) -> str:
        return f"labels={self.count}"

    def work(self, resources: Resources) -> Work:
        return Work(disk_bytes=response_bytes(self.row_count()))

    def row_count(self) -> int:
        prompts = self.responses.prompt_count()
        return self.prompt_count() * (self.responses.row_count() // prompts) if prompts else 0

    def prompt_count(self) -> int:
        return min(self.count, self.responses.prompt_count())

    @property
    def new_tokens(self) -> int | None:
        return self.responses.new_tokens

    @property
    def evaluated_model(self) -> Any:
        return self.responses.evaluated_model

    def run(self, ctx: Context) -> None:
        path = ctx.path(self.responses) / RESPONSES
        rows = read_rows(path, columns=("row_id", "prompt_id"))
        first = sorted({row["prompt_id"] for row in rows}, key=self._digest)[: self.count]
        chosen = [row["row_id"] for row in rows if row["prompt_id"] in set(first)]
        copy_rows(path, ctx.out / RESPONSES, row_ids=chosen)
        ctx.summary(rows=len(chosen), prompts=len(first))

    def _digest(self, prompt_id: str) -> bytes:
        return hashlib.sha256(f"{self.seed}/{prompt_id}".encode()).digest()


@dataclass(frozen=True, kw_only=True)
class Probe(Stage):
    """The probability that a response is right, for every response of `states.data`.

    Right is a response whose reward is above the bar: the mean of `bar` (scores of others' responses to the labelled
    prompts), or of `labels` themselves; of rewards that are 0 or 1, that is 1. States are standardized by the labelled
    ones. Where all labelled responses are right, or none, the probability is their share.
    """

    states: HiddenStates
    labels: Score
    """Rewards of the labelled responses, which are a part of `states.data`."""
    bar: Score | None = None
    kind: Kind = "logistic"
    penalty: float = 1.0
    """L2 penalty: the inverse of `C` for the logistic regression, `alpha` for the MLP."""
    seed: int = 0
    """Of the MLP's initial weights; the logistic regression draws nothing."""
    responses: Stage = field(init=False)
    """Derived from `states`; a field, so that the graph sees it as an input."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "responses", self.states.data)
        if self.kind not in ("logistic", "mlp"):
            raise ValueError(f"kind = {self.kind!r} is not one of logistic, mlp")
        if not self.penalty > 0:
            raise ValueError(f"penalty = {self.penalty} is not above 0")

    def label(self) -> str:
        return f"{self.kind},{self.states.label()},{self.labels.responses.label()}"

    def work(self, resources: Resources) -> Work:
        return Work(disk_bytes=response_bytes(self.row_count()) / 2)

    def row_count(self) -> int:
        return self.states.row_count()

    def prompt_count(self) -> int:
        return self.responses.prompt_count()

    @property
    def new_tokens(self) -> int | None:
        return self.responses.new_tokens

    @property
    def evaluated_model(self) -> Any:
        return self.responses.evaluated_model

    def run(self, ctx: Context) -> None:
        import numpy as np

        states = read_states(ctx.path(self.states) / STATES)
        labelled = [row for row in _judged(ctx, self.labels) if row["row_id"] in states]
        if not labelled:
            raise NothingLeft(f"of no response of {self.labels.title} are there both a reward and a hidden state")
        bar = _mean(_judged(ctx, self.bar) if self.bar is not None else labelled)
        right = np.array([row["reward"] > bar for row in labelled])
        given = np.stack([states[row["row_id"]] for row in labelled])
        chance = fitted(given, right, kind=self.kind, penalty=self.penalty, seed=self.seed)
        write_probabilities(ctx, self.responses, _chances(states, chance))
        prompts = sorted({row["prompt_id"] for row in labelled})
        replace_text(ctx.out / PROBE, json.dumps({"bar": bar, "labelled": prompts}))
        ctx.summary(labelled=len(labelled), labelled_right=float(right.mean()), bar=bar)


def fitted(states: "np.ndarray", right: "np.ndarray", *, kind: Kind, penalty: float, seed: int) -> Probability:
    """Return the probe that is trained on states (N x D) and whether each is right (N)."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if right.all() or not right.any():
        return lambda given: np.full(len(given), float(right.mean()))
    if kind == "mlp":
        model = MLPClassifier(hidden_layer_sizes=(HIDDEN,), alpha=penalty, max_iter=1000, random_state=seed)
    else:
        model = LogisticRegression(C=1 / penalty, max_iter=1000)
    trained = make_pipeline(StandardScaler(), model).fit(states, right)
    return lambda given: trained.predict_proba(given)[:, 1]


def write_probabilities(ctx: Context, responses: Stage, chances: dict[str, float]) -> None:
    """Write `scores.parquet` of all responses; one without a probability has an error."""
    rows = read_rows(ctx.path(responses) / RESPONSES, columns=KEPT)
    made = [scored(row, chances.get(row["row_id"]), error=_fault(row, chances)) for row in rows]
    write_rows(ctx.out / SCORES, made)
    known = [row["reward"] for row in made if row["reward"] is not None]
    ctx.summary(rows=len(made), scored_rows=len(known), mean_probability=math.fsum(known) / max(len(known), 1))


def _fault(row: Row, chances: dict[str, float]) -> str | None:
    return None if row["row_id"] in chances else UNREAD


def _chances(states: "dict[str, np.ndarray]", chance: Probability) -> dict[str, float]:
    import numpy as np

    return dict(zip(states, chance(np.stack(list(states.values()))).tolist(), strict=True))


def _judged(ctx: Context, stage: Stage) -> list[Row]:
    rows = read_rows(ctx.path(stage) / SCORES, columns=("row_id", "prompt_id", "reward"))
    check_finite(rows, columns=("reward",), source=stage.title)
    return [row for row in rows if row["reward"] is not None]


def _mean(rows: list[Row]) -> float:
    if not rows:
        raise NothingLeft("no labelled response has a reward: there is no bar above which one is right")
    return math.fsum(row["reward"] for row in rows) / len(rows)
