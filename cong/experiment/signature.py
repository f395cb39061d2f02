"""The axes of an experiment: the keyword arguments of its function `cells`.

    def cells(scale, *, setups: Setups = Setups(), share: float = 0.1): ...

An argument whose default is a dataclass stands for its fields, so that experiments can share axes.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast, get_type_hints


def axes_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return every axis with its type and default; raise `ValueError` when two have one name."""
    axes: dict[str, inspect.Parameter] = {}
    for parameter in _keywords(function):
        for axis in _fields(parameter) if _is_group(parameter) else [parameter]:
            if axis.name in axes:
                raise ValueError(f"two axes are called {axis.name!r}")
            axes[axis.name] = axis
    return axes


def arguments(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments that set the given axes; the others keep their defaults."""
    given = dict(settings)
    for parameter in _keywords(function):
        if _is_group(parameter):
            chosen = {axis.name: given.pop(axis.name) for axis in _fields(parameter) if axis.name in given}
            given[parameter.name] = dataclasses.replace(parameter.default, **chosen)
    return given


def _keywords(function: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return [parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]


def _is_group(parameter: inspect.Parameter) -> bool:
    return dataclasses.is_dataclass(parameter.default)


def _fields(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    types = get_type_hints(cast(type[Any], type(parameter.default)))
    return [
        parameter.replace(name=field.name, default=getattr(parameter.default, field.name), annotation=types[field.name])
        for field in dataclasses.fields(parameter.default)
    ]
