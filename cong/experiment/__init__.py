"""Experiment files: cells, axes, grids, and experiments made of others."""

from cong.experiment.file import (
    Cell,
    Experiment,
    Result,
    Results,
    Value,
    collect,
    load,
    parse,
    value_text,
)

__all__ = [
    "Cell",
    "Experiment",
    "Result",
    "Results",
    "Value",
    "collect",
    "load",
    "parse",
    "value_text",
]
