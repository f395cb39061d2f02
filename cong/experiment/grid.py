"""Grids over the axes of an experiment: `--grid alpha=0:1:0.1 --grid beta=0.1,0.5` asks for 22 points.

Values are listed (`0.1,0.5`), given as a range with its step, both ends included (`0:1:0.1`), or begun and left to go
on (`0,0.1,...,1`). Numbers are decimal, so 0.1 three times is 0.3.

    >>> expand("0:1:0.25")
    ['0', '0.25', '0.50', '0.75', '1.00']
"""

import itertools
import typing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from cong.errors import UserError
from cong.experiment.file import Cell, Experiment, parse
from cong.graph.userfiles import guarded
from cong.scales import Scale

MOST_VALUES = 10_000

Point = dict[str, Any]
"""A value per axis."""


def expand(text: str) -> list[str]:
    """Return the values that a grid's text stands for; raise `ValueError` with the reason when it stands for none."""
    parts = [part.strip() for part in text.split(",")]
    if any(not part for part in parts):
        raise ValueError("a value is missing between commas")
    if "..." in parts:
        return _continued(parts)
    return [value for part in parts for value in (_range(part) if ":" in part else [part])]


def parse_grid(experiment: Experiment, assignments: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Turn `AXIS=VALUES` texts into values per axis; raise `UserError` for an unknown axis or an impossible value."""
    grid: dict[str, tuple[Any, ...]] = {}
    for text in assignments:
        axis, equals, values = text.partition("=")
        if not equals:
            raise UserError(f"--grid {text}: write AXIS=VALUES, such as alpha=0:1:0.1")
        if axis in grid:
            raise UserError(f"--grid {text}: the axis {axis!r} is given twice")
        annotation = experiment.axis(axis, given=f"--grid {text}").annotation
        try:
            grid[axis] = _values(expand(values), annotation)
        except ValueError as error:
            raise UserError(f"--grid {text}: {error}") from error
    return grid


def chosen_grid(
    experiment: Experiment, settings: dict[str, Any], given: tuple[str, ...], *, own: tuple[str, ...]
) -> dict[str, tuple[Any, ...]]:
    """Return the grid: what was given, and the file's own of the axes that nobody else speaks of."""
    chosen = parse_grid(experiment, given)
    both = next((axis for axis in chosen if axis in settings), None)
    if both is not None:
        raise UserError(f"the axis {both!r} is given with --set and with --grid")
    rest = parse_grid(experiment, own)
    return {axis: values for axis, values in rest.items() if axis not in {*settings, *chosen}} | chosen


def grid_cells(
    experiment: Experiment, scale: Scale, settings: dict[str, Any], grid: dict[str, tuple[Any, ...]]
) -> list[Cell]:
    """Return the cells at all points of the grid."""
    found = [(point, experiment.cells(scale, {**settings, **point})) for point in points(grid)]
    return guarded(experiment.path, lambda: merge(found))


def accepted_cells(
    experiment: Experiment, scale: Scale, settings: dict[str, Any], grid: dict[str, tuple[Any, ...]]
) -> list[Cell]:
    """Return the cells at those points that the experiment accepts, for a search.

    Raises `UserError` when it accepts none, or none at the first or the last value of an axis: those were asked for.
    """
    found: list[tuple[Point, list[Cell]]] = []
    refused: list[tuple[Point, UserError]] = []
    for point in points(grid):
        try:
            found.append((point, experiment.cells(scale, {**settings, **point})))
        except UserError as error:
            refused.append((point, error))
    accepted = [point for point, _ in found]
    for point, error in refused:
        ends = [axis for axis, values in grid.items() if point[axis] in (values[0], values[-1])]
        if not accepted or not all(any(other[axis] == point[axis] for other in accepted) for axis in ends):
            raise error
    return guarded(experiment.path, lambda: merge(found))


def points(grid: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
    """Yield every combination, the last axis running fastest; one empty point for an empty grid."""
    for combination in itertools.product(*grid.values()):
        yield dict(zip(grid, combination, strict=True))


def merge(found: Sequence[tuple[Point, list[Cell]]]) -> list[Cell]:
    """Return the cells of all points: one that comes out alike at several points once, others under names of their own.

    Two cells of one name with different stages are distinguished by the axes of the grid.
    """
    stages: dict[str, set[str]] = {}
    for _, cells in found:
        for cell in cells:
            stages.setdefault(cell.name, set()).add(cell.stage.fingerprint)
    merged: dict[str, Cell] = {}
    for point, cells in found:
        for cell in cells:
            named = cell if len(stages[cell.name]) == 1 else _with_point(cell, point)
            before = merged.setdefault(named.name, named)
            if before.stage.fingerprint != named.stage.fingerprint:
                raise ValueError(f"two points of the grid give different cells of one name, {named.name}")
    return list(merged.values())


def _with_point(cell: Cell, point: Point) -> Cell:
    values: dict[str, Any] = {axis: value[0] if isinstance(value, tuple) else value for axis, value in point.items()}
    return Cell(stage=cell.stage, axes={**values, **cell.axes})


def _values(texts: Sequence[str], annotation: Any) -> tuple[Any, ...]:
    """Return the values in the type of the axis; an axis that takes several values gets them one at a time."""
    several = typing.get_origin(annotation) is tuple
    values = tuple(parse(text, annotation) for text in texts)
    value, count = Counter(values).most_common(1)[0]
    if count > 1:
        raise ValueError(f"the value {value[0] if several else value} comes twice")
    return values


def _range(text: str) -> list[str]:
    bounds = text.split(":")
    if len(bounds) != 3:
        raise ValueError(f"{text!r} is not a range FIRST:LAST:STEP")
    first, last, step = (_number(bound) for bound in bounds)
    return _steps(first, last, step, text=text)


def _continued(parts: list[str]) -> list[str]:
    """Return FIRST, SECOND, ..., LAST with what lies between."""
    at = parts.index("...")
    if at < 2 or at != len(parts) - 2:
        raise ValueError("'...' stands between two first values and the last one, as in 0,0.1,...,1")
    before, first, last = (_number(part) for part in (parts[at - 2], parts[at - 1], parts[-1]))
    return [*parts[: at - 1], *_steps(first, last, first - before, text=",".join(parts))]


def _steps(first: Decimal, last: Decimal, step: Decimal, *, text: str) -> list[str]:
    if step == 0 or (last - first) / step < 0:
        raise ValueError(f"{text!r} never reaches {last} from {first} in steps of {step}")
    count = (last - first) / step
    if count != count.to_integral_value():
        raise ValueError(f"{text!r} misses {last}: the steps of {step} from {first} pass it by")
    if count > MOST_VALUES:
        raise ValueError(f"{text!r} has {count + 1} values, more than {MOST_VALUES}")
    return [str(first + number * step) for number in range(int(count) + 1)]


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is not a number") from error
