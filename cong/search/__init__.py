"""Responses of a frozen strong model that a weak pair steers, chunk by chunk.

responses = Search(model=strong, post=weak_aligned, pre=weak, prompts=prompts, beams=2, expansions=2, chunk=30, ...)
"""

from cong.search.stage import Search

__all__ = ["Search"]
