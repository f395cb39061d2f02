"""An experiment that is made of other experiment files: their cells in one graph, their reports on one page.

methods = Part(path=Path(__file__).with_name("methods.py"), settings={"seeds": (0, 1, 2)})
methods.cells(scale)              # those of the file, at its own grid, with an axis `part` in front
methods.report(results)           # the file's own report on its share of the results
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cong.experiment.file import Cell, Experiment, Results, load
from cong.experiment.grid import chosen_grid, grid_cells
from cong.scales import Scale

PART = "part"


@dataclass(frozen=True, kw_only=True)
class Part:
    """An experiment file with the settings and the grid that it is given. Two parts of one file need their labels."""

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    label: str = ""
    grid: tuple[str, ...] = ()
    """As on the command line; it replaces the file's own of the same axis."""

    @property
    def name(self) -> str:
        """Return what the part is called: its file's name, and its label."""
        return self.path.stem + (f"-{self.label}" if self.label else "")

    @property
    def experiment(self) -> Experiment:
        """Return the loaded file."""
        return _loaded(self.path)

    def cells(self, scale: Scale) -> list[Cell]:
        """Return the part's cells."""
        grid = chosen_grid(self.experiment, dict(self.settings), self.grid, own=self.experiment.grid)
        cells = grid_cells(self.experiment, scale, dict(self.settings), grid)
        return [dataclasses.replace(cell, axes={PART: self.name, **cell.axes}) for cell in cells]

    def own(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the part's share of the cells, on the axes of its file."""
        return [_without_part(cell) for cell in cells if cell.axes.get(PART) == self.name]

    def results(self, results: Results) -> Results:
        """Return the part's share of the results, on the axes of its file."""
        mine = [result for result in results if result.axes.get(PART) == self.name]
        return [dataclasses.replace(result, cell=_without_part(result.cell)) for result in mine]

    def report(self, results: Results) -> list[Any]:
        """Return the blocks of the file's own report."""
        return list(self.experiment.report(self.results(results)))


@dataclass(frozen=True, kw_only=True)
class Page:
    """A further page of a report."""

    name: str
    title: str
    description: str
    blocks: Sequence[Any]
    results: Results
    """Whose responses can be looked at on the page."""


def page(part: Part, results: Results) -> Page:
    """Return the page of a part, with its share of the results."""
    experiment = part.experiment
    return Page(
        name=part.name,
        title=experiment.title,
        description=experiment.description,
        blocks=part.report(results),
        results=part.results(results),
    )


def _without_part(cell: Cell) -> Cell:
    return dataclasses.replace(cell, axes={name: value for name, value in cell.axes.items() if name != PART})


@functools.lru_cache(maxsize=64)
def _loaded(path: Path) -> Experiment:
    return load(path)
