"""The points that a search has finished, remembered in the store: the same command continues where it was ended."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from filelock import FileLock

from cong.errors import UserError
from cong.experiment import Cell
from cong.experiment.axes import Search
from cong.experiment.grid import Point
from cong.graph.fingerprint import fingerprint
from cong.graph.journal import replace_text
from cong.graph.store import StageStore
from cong.run.job import Job


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A finished point with the mean of the measure over its cells at the axes of the search."""

    point: Point
    cells: list[Cell]
    value: float


class Points:
    """The points that a search has finished, remembered in the store."""

    def __init__(self, job: Job, search: Search) -> None:
        self.job, self.search = job, search
        # More trials go on with the same search.
        identity = fingerprint({**asdict(search), "trials": None, "settings": job.settings})
        self._path = job.store.root / "searches" / f"{job.name}-{identity[:8]}.json"
        self.known: list[Point] = self._load()

    def add(self, point: Point) -> None:
        """Remember a point, beside those that another process has added meanwhile."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(self._path.with_suffix(".lock"))):
            theirs = self._load()
            self.known += [other for other in theirs if other not in self.known]
            if point not in self.known:
                self.known.append(point)
            if self.known != theirs:
                replace_text(self._path, json.dumps(self.known, indent=1))

    def _load(self) -> list[Point]:
        return json.loads(self._path.read_text()) if self._path.exists() else []

    def judged(self) -> list[Judged]:
        """Return what is finished and has a finite measure, the best first."""
        done = [(point, cells) for point in self.known if (cells := self._accepted(point)) is not None]
        every = [
            Judged(point=point, cells=cells, value=self.value(cells))
            for point, cells in done
            if all(self.job.store.is_complete(cell.stage) for cell in cells)
        ]
        finite = [point for point in every if math.isfinite(point.value)]
        return sorted(finite, key=lambda point: point.value, reverse=not self.search.lowest)

    def value(self, cells: Sequence[Cell]) -> float:
        """Return the mean of the measure over those cells of a point that lie at an axis of the search.

        Others, such as a baseline, are the same at every point. Where no cell names such an axis, all count.
        """
        searched = [cell for cell in cells if not cell.axes.keys().isdisjoint(self.search.names)]
        return mean_of(self.search.measure, searched or cells, self.job.store)

    def _accepted(self, point: Point) -> list[Cell] | None:
        try:
            return self.job.cells_at(point)
        except UserError:
            return None  # The experiment accepted it then, and has changed since.


def mean_of(measure: str, cells: Sequence[Cell], store: StageStore) -> float:
    """Return the mean of a measure over finished cells, NaN or infinite when that of one cell is.

    Raises `UserError` when they have no number of that name.
    """
    values = [store.record(cell.stage)["results"] for cell in cells]
    numbers = [found.get(measure) for found in values]
    if not all(isinstance(number, int | float) for number in numbers):
        known = ", ".join(sorted(name for name, value in values[0].items() if isinstance(value, int | float)))
        raise UserError(f"--measure {measure}: the cells' results hold {known}")
    strange = [number for number in numbers if not math.isfinite(number)]
    return strange[0] if strange else math.fsum(numbers) / len(numbers)
