"""Smoothing of probabilities over a graph of neighbours in the space of hidden states.

    Smoothed(scored=probe, states=probe.states, share=0.5, neighbours=10)

F = (1 - share) (I - share S)^-1 Y (Zhou et al., 2003, "Learning with local and global consistency"), as in
scikit-learn's LabelSpreading, which takes hard labels alone: Y holds p and 1 - p of every response, and the result is
the first column's share of both. S = D^-1/2 W D^-1/2, W the symmetric graph of cosine neighbours.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cong.data import SCORES, read_rows
from cong.data.finite import check_finite
from cong.errors import NothingLeft
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import Work
from cong.models.work import response_bytes
from cong.probing.probe import write_probabilities
from cong.probing.states import STATES, HiddenStates, read_states

if TYPE_CHECKING:
    import numpy as np

TOLERANCE = 1e-10
"""Relative residual of the linear system."""


@dataclass(frozen=True, kw_only=True)
class Smoothed(Stage):
    """The probabilities of `scored`, each drawn towards those of its neighbours; with a share of 0 they stay."""

    scored: Stage
    """Probabilities in the column `reward`, such as those of a `Probe`."""
    states: HiddenStates
    share: float = 0.5
    """How much comes from the neighbours, the lambda of the formula, in [0, 1)."""
    neighbours: int = 10
    responses: Stage = field(init=False)
    """Derived from `states`; a field, so that the graph sees it as an input."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "responses", self.states.data)
        if getattr(self.scored, "responses", None) != self.responses:
            raise ValueError(f"{self.scored.title} and {self.states.title} are of two sets of responses")
        if not 0 <= self.share < 1:
            raise ValueError(f"share = {self.share} is not in [0, 1)")
        if self.neighbours < 1:
            raise ValueError(f"neighbours = {self.neighbours} is below 1")

    def label(self) -> str:
        return f"share={self.share:g},neighbours={self.neighbours},{self.scored.label()}"

    def work(self, resources: Resources) -> Work:
        return Work(disk_bytes=response_bytes(self.row_count()) / 2)

    def row_count(self) -> int:
        return self.scored.row_count()

    def prompt_count(self) -> int:
        return self.scored.prompt_count()

    @property
    def new_tokens(self) -> int | None:
        return self.scored.new_tokens

    @property
    def evaluated_model(self) -> Any:
        return self.scored.evaluated_model

    def run(self, ctx: Context) -> None:
        import numpy as np

        rows = read_rows(ctx.path(self.scored) / SCORES, columns=("row_id", "prompt_id", "reward"))
        check_finite(rows, columns=("reward",), source=self.scored.title)
        given = {row["row_id"]: row["reward"] for row in rows if row["reward"] is not None}
        if not given:
            raise NothingLeft(f"{self.scored.title} holds no probability")
        states = read_states(ctx.path(self.states) / STATES)
        points = np.stack([states[row_id] for row_id in given])
        found = smoothed(points, np.array(list(given.values())), share=self.share, neighbours=self.neighbours)
        write_probabilities(ctx, self.responses, dict(zip(given, found.tolist(), strict=True)))


def smoothed(states: "np.ndarray", given: "np.ndarray", *, share: float, neighbours: int) -> "np.ndarray":
    """Return the smoothed probabilities (N) of given ones (N) at states (N x D)."""
    import numpy as np
    from scipy.sparse import eye_array
    from scipy.sparse.linalg import cg

    if share == 0 or len(given) < 2:
        return given
    system = eye_array(len(given), format="csr") - share * _normalized(states, neighbours=neighbours)
    columns = []
    for column in (given, 1 - given):
        solution, failed = cg(system, (1 - share) * column, rtol=TOLERANCE)
        assert not failed, "the matrix is symmetric and positive definite"
        columns.append(np.maximum(solution, 0))
    return columns[0] / (columns[0] + columns[1])


def _normalized(states: "np.ndarray", *, neighbours: int) -> Any:
    """Return S, a sparse symmetric matrix whose eigenvalues are in [-1, 1]."""
    import numpy as np
    from scipy.sparse import diags_array
    from sklearn.neighbors import kneighbors_graph

    count = min(neighbours, len(states) - 1)
    directed = kneighbors_graph(states, count, mode="connectivity", metric="cosine", include_self=False)
    graph = directed.maximum(directed.T)
    scale = diags_array(1 / np.sqrt(np.asarray(graph.sum(axis=1)).ravel()))
    return scale @ graph @ scale
