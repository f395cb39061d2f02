"""An experiment file: Python that declares cells, and what to show of their results.

    def cells(scale, *, alpha: float = 0.4, seeds: tuple[int, ...] = (0,)) -> list[Cell]: ...
    def report(results: Results) -> list[Block]: ...

The keyword arguments of `cells` are the experiment's axes; a dataclass among them stands for its fields.
`--set alpha=0.3` sets one, `--grid alpha=0:1:0.1` calls `cells` for every value. `GRID = ("alpha=0:1:0.1",)` in the
file is the grid that is run when none is given, `SCALE = "mine.py"` the scale: a built-in one, or a file beside it.
"""

import inspect
import itertools
import types
import typing
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from cong.data import Row, read_rows
from cong.errors import UserError
from cong.experiment.signature import arguments, axes_of
from cong.graph.resources import Resources
from cong.graph.stage import Stage
from cong.graph.store import StageStore
from cong.graph.userfiles import guarded, load_module
from cong.scales import Scale

Value = str | int | float
DEFAULT_SCALE = "tiny"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One entry of an experiment: a final stage, and where it lies on the axes (method, alpha, seed, ...)."""

    stage: Stage
    axes: dict[str, Value]
    may_lack: bool = False
    """Whether the run continues, and the report is written, without it when a stage finds nothing to work on."""

    @property
    def name(self) -> str:
        """Return the axes as text: `method=ConG,seed=0`."""
        return ",".join(f"{key}={value_text(value)}" for key, value in self.axes.items())


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished cell."""

    cell: Cell
    values: dict[str, Any]
    """The summary of the cell's final stage."""
    directory: Path
    """Of the cell's final stage."""
    store: StageStore
    """Where it lies, with what it was made of."""

    @property
    def axes(self) -> dict[str, Value]:
        """Return where the cell lies on the axes."""
        return self.cell.axes

    def rows(self, filename: str) -> list[Row]:
        """Return the rows of an output of the cell's final stage."""
        return read_rows(self.directory / filename)


Results = list[Result]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A loaded experiment file."""

    path: Path
    module: ModuleType
    axes: dict[str, inspect.Parameter]

    @property
    def name(self) -> str:
        """Return the file's name without its ending."""
        return self.path.stem

    @property
    def title(self) -> str:
        """Return the first line of the file's docstring."""
        return (self.module.__doc__ or self.name).strip().splitlines()[0]

    @property
    def description(self) -> str:
        """Return the rest of the file's docstring, up to the commands that it ends with."""
        lines = inspect.cleandoc(self.module.__doc__ or "").splitlines()[1:]
        text = "\n".join(itertools.takewhile(lambda line: not line.startswith(" "), lines)).strip()
        # The lines of the file are not the lines of a page.
        return "\n\n".join(" ".join(paragraph.split("\n")) for paragraph in text.split("\n\n"))

    def cells(self, scale: Scale, settings: dict[str, Any]) -> list[Cell]:
        """Build the cells; raise `UserError` for whatever the file objects to."""
        cells = guarded(self.path, lambda: self.module.cells(scale, **arguments(self.module.cells, settings)))
        if not cells or not all(isinstance(cell, Cell) for cell in cells):
            raise UserError(f"{self.path}: `cells` must return a list of Cell, and at least one")
        name, count = Counter(cell.name for cell in cells).most_common(1)[0]
        if count > 1:
            raise UserError(f"{self.path}: two cells are called {name}")
        return cells

    @property
    def grid(self) -> tuple[str, ...]:
        """Return the grid that the file itself asks for."""
        return tuple(getattr(self.module, "GRID", ()))

    @property
    def scale(self) -> str:
        """Return the scale that the file itself asks for: a name, or the path of a file."""
        own = str(getattr(self.module, "SCALE", DEFAULT_SCALE))
        return str(self.path.parent / own) if own.endswith(".py") else own

    def remarks(self, cells: list[Cell], resources: Resources) -> list[str]:
        """Return what the file has to say about its plan, for files that have a function `remarks`."""
        make = getattr(self.module, "remarks", None)
        return guarded(self.path, lambda: list(make(cells, resources))) if make else []

    def pages(self, results: Results) -> list[Any]:
        """Return the further pages of the report, for files that have a function `pages`."""
        make = getattr(self.module, "pages", None)
        return guarded(self.path, lambda: list(make(results))) if make else []

    def report(self, results: Results) -> list[Any]:
        """Return the blocks of the report; raise `UserError` for whatever the file does wrong."""
        make = getattr(self.module, "report", None)
        return guarded(self.path, lambda: list(make(results))) if make else []

    def settings(self, assignments: list[str]) -> dict[str, Any]:
        """Turn `KEY=VALUE` texts into keyword arguments of `cells`; raise `UserError` for an unknown axis."""
        return dict(self._setting(text) for text in assignments)

    def _setting(self, text: str) -> tuple[str, Any]:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: write KEY=VALUE")
        annotation = self.axis(key, given=f"--set {text}").annotation
        try:
            return key, parse(value, annotation)
        except ValueError as error:
            raise UserError(f"--set {text}: {error}") from error

    def axis(self, name: str, *, given: str) -> inspect.Parameter:
        """Return an axis; raise `UserError` when there is none of that name."""
        if name not in self.axes:
            known = ", ".join(f"{name} ({_type_name(p.annotation)})" for name, p in self.axes.items()) or "none"
            raise UserError(f"{given}: unknown axis {name!r}; the axes of {self.path.name} are {known}")
        return self.axes[name]


def load(path: Path) -> Experiment:
    """Import an experiment file; raise `UserError` when it is missing or raises."""
    module = load_module(path, kind="experiment file")
    if not callable(getattr(module, "cells", None)):
        raise UserError(f"{path} has no function `cells(scale, *, axis=default)`")
    return Experiment(path=path, module=module, axes=guarded(path, lambda: axes_of(module.cells)))


def collect(cells: list[Cell], store: StageStore) -> Results:
    """Read the results of finished cells; one that may lack a result, and does, is left out."""
    finished = [cell for cell in cells if not cell.may_lack or store.is_complete(cell.stage)]
    store.fetch(cell.stage for cell in finished)
    return [
        Result(
            cell=cell, values=store.record(cell.stage)["results"], directory=store.directory(cell.stage), store=store
        )
        for cell in finished
    ]


def parse(text: str, annotation: Any) -> Any:
    """Read `text` as a value of the annotated type: str, int, float, bool, or a tuple of those, separated by commas.

    An axis that may be None takes a value of its other type: None, its default, lets the scale choose.
    """
    if typing.get_origin(annotation) is types.UnionType:
        return parse(text, next(kind for kind in typing.get_args(annotation) if kind is not types.NoneType))
    if typing.get_origin(annotation) is tuple:
        return tuple(parse(item, typing.get_args(annotation)[0]) for item in text.split(","))
    if annotation is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text.lower() == "true"
    if annotation not in (int, float, str):
        raise ValueError(f"an axis of type {_type_name(annotation)} cannot be set from the command line")
    try:
        return annotation(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not of type {annotation.__name__}") from error


def _type_name(annotation: Any) -> str:
    return (
        annotation.__name__
        if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias)
        else str(annotation)
    )


def value_text(value: Any) -> str:
    """Return a value of an axis as text: numbers as short as they can be without becoming another number."""
    if isinstance(value, list | tuple):
        return ",".join(map(value_text, cast(Sequence[Any], value)))
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
