"""The style of an answer as Arena-Hard counts it: length, headers, list items and bold passages.

>>> style_of("# Title\\n\\n- one\\n- **two**", length=9)
Style(length=9, headers=1, lists=2, bold=1)
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

_FENCED = re.compile(r"```([^`]*)```")
_HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
_ORDERED = re.compile(r"^\s*\d+\.\s", re.MULTILINE)
_UNORDERED = re.compile(r"^\s*[-*+]\s", re.MULTILINE)
_BOLD = (re.compile(r"\*\*[^*\n]+\*\*"), re.compile(r"__[^_\n]+__"))
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Style:
    """What style control controls for."""

    length: int
    headers: int
    lists: int
    bold: int


def style_of(answer: str, *, length: int) -> Style:
    """Count the Markdown of an answer outside of its code blocks; `length` is the whole answer's, in tokens."""
    prose = answer
    for block in _FENCED.findall(answer):
        # The benchmark takes the block's content out wherever it stands, and leaves the fences.
        prose = prose.replace(block, "")
    return Style(
        length=length,
        headers=len(_HEADER.findall(prose)),
        lists=len(_ORDERED.findall(prose)) + len(_UNORDERED.findall(prose)),
        bold=sum(len(pattern.findall(prose)) for pattern in _BOLD),
    )


def words_and_marks(text: str) -> int:
    """Count words and punctuation marks: a length that needs no tokenizer and is the same for every model."""
    return len(_WORD.findall(text))


Measure = Callable[[str], int]
"""Text to its length in tokens."""
