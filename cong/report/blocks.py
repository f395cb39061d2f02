"""What a report consists of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph, with an optional title; `warning` sets it off."""

    text: str
    title: str = ""
    warning: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells of text. The first column names the rows; `best` gives, per column, the row to print bold."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    best: Sequence[int | None] = ()


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture: `draw` is given matplotlib axes (a list of them when `panels` is above 1)."""

    title: str
    name: str
    """File name without ending."""
    draw: Callable[[Any], None]
    panels: int = 1
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Responses:
    """Responses of several models to the same prompts, side by side."""

    title: str
    prompts: Sequence[tuple[str, dict[str, str]]]
    """Prompt, and response per model."""
    caption: str = ""


Block = Text | Table | Figure | Responses
