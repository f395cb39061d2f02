"""`cong align`: the whole method on one's own models, without an experiment file."""

from cong.align.run import align, planned
from cong.align.request import Request, with_setting

__all__ = ["Request", "align", "planned", "with_setting"]
