"""Scales: `scale("tiny")` is the synthetic world on a CPU, `scale("small")` published models on one GPU,
`scale("paper")` the settings of the paper.

`scale("mine.py")` calls the function `scale` of a file, which starts from one of these and replaces what it wants.
"""

import dataclasses
from pathlib import Path

from cong.errors import UserError
from cong.graph.userfiles import guarded, load_module
from cong.scales.paper import ARMORM, CHECKPOINTS, paper_scale
from cong.scales.settings import Scale
from cong.scales.small import small_scale
from cong.scales.tiny import tiny_scale

__all__ = ["ARMORM", "CHECKPOINTS", "Scale", "scale"]

_MAKERS = {"tiny": tiny_scale, "small": small_scale, "paper": paper_scale}


def scale(name: str) -> Scale:
    """Return a scale by name, or that of a Python file; raise `UserError` when there is none."""
    if name.endswith(".py"):
        return _scale_of(Path(name))
    if name not in _MAKERS:
        raise UserError(f"unknown scale {name!r}: known are {', '.join(_MAKERS)}, or give the path of a .py file")
    return _MAKERS[name]()


def _scale_of(path: Path) -> Scale:
    make = getattr(load_module(path, kind="scale file"), "scale", None)
    if not callable(make):
        raise UserError(f"{path} has no function `scale()`")
    made = guarded(path, make)
    if not isinstance(made, Scale):
        raise UserError(f"{path}: `scale()` returns {type(made).__name__}, not a Scale")
    # Results of a file's scale never stand under the name of the scale that it began with.
    return dataclasses.replace(made, name=path.stem) if made.name in _MAKERS else made
