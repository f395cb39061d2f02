"""What is sent to MLflow: params, metrics and tables, made of values as stages and cells have them."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cong.graph.fingerprint import canonical
from cong.graph.stage import Stage
from cong.tracking.names import LONGEST_PARAM, numbers_of, text_of

Values = Mapping[str, Any]


def params(values: Values, names: Mapping[str, str]) -> list[Any]:
    """Return values as params."""
    from mlflow.entities import Param

    return [Param(names[key], text_of(value, LONGEST_PARAM)) for key, value in values.items()]


def metrics(values: Values, names: Mapping[str, str], *, at: int, step: int = 0) -> list[Any]:
    """Return the numbers among values as metrics; `at` is a Unix time in milliseconds."""
    from mlflow.entities import Metric

    return [Metric(names[key], value, at, step) for key, value in numbers_of(values).items()]


def of_points(points: Sequence[Values], names: Mapping[str, str]) -> list[Any]:
    """Return the points of curves, as a journal holds them, as metrics."""
    return [
        metric
        for point in points
        for metric in metrics(curves_of(point), names, at=int(point["time"] * 1000), step=int(point["step"]))
    ]


def curves_of(point: Values) -> dict[str, Any]:
    """Return the values of a point."""
    return {key: value for key, value in point.items() if key not in ("step", "time")}


def table(rows: Sequence[Values], *, but: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    """Return rows as columns of plain values, without those that are named."""
    names = dict.fromkeys(name for row in rows for name in row if name not in but)
    return {name: [_plain(row.get(name)) for row in rows] for name in names}


def fields(stage: Stage) -> dict[str, Any]:
    """Return a stage's fields as values: numbers and texts as they are, inputs by title, the rest as JSON."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(stage):
        value = getattr(stage, field.name)
        if isinstance(value, Stage):
            found[field.name] = f"{value.title} {value.fingerprint[:8]}"
        else:
            found[field.name] = value if isinstance(value, int | float | str) else json.dumps(canonical(value))
    return found


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float) or value is None else text_of(value)
