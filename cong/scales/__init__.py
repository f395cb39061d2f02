"""Scales: `scale("tiny")` is the synthetic world on a CPU, `scale("paper")` the settings of the paper."""

from cong.errors import UserError
from cong.scales.paper import ARMORM, CHECKPOINTS, paper_scale
from cong.scales.settings import Scale
from cong.scales.tiny import tiny_scale

__all__ = ["ARMORM", "CHECKPOINTS", "Scale", "scale"]


def scale(name: str) -> Scale:
    """Return a scale by name; raise `UserError` when there is none."""
    makers = {"tiny": tiny_scale, "paper": paper_scale}
    if name not in makers:
        raise UserError(f"unknown scale {name!r}: known are {', '.join(makers)}")
    return makers[name]()
