"""Experiment files: cells, axes, grids, and experiments made of others."""

from cong.experiment.file import (
    PREFIX,
    Cell,
    Experiment,
    Result,
    Results,
    Value,
    collect,
    guarded,
    load,
    parse,
    value_text,
)

__all__ = [
    "PREFIX",
    "Cell",
    "Experiment",
    "Result",
    "Results",
    "Value",
    "collect",
    "guarded",
    "load",
    "parse",
    "value_text",
]
