"""What a report consists of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Place = int | tuple[int, ...] | None
"""A row, several equally good ones, or none."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph, with an optional title; `warning` sets it off."""

    text: str
    title: str = ""
    warning: bool = False


@dataclass(frozen=True, kw_only=True)
class Links:
    """A list of links to pages beside this one."""

    title: str
    links: Sequence[tuple[str, str]]
    """File name, and what is found there."""
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells of text; the first column names the rows. `ranked_table` fills in `best`, `second` and `paper`."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    best: Sequence[Place] = ()
    """Per column, the row to print bold."""
    second: Sequence[Place] = ()
    """Per column, the row to underline."""
    paper: Sequence[Sequence[str]] = ()
    """Per cell, the number that the paper has there, or an empty text: rows of the same shape."""
    folded: bool = False
    """Whether it is shown only on demand."""


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


@dataclass(frozen=True, kw_only=True)
class Source:
    """Who gave some of a browser's answers: a model, under settings such as a seed that the reader chooses among."""

    model: str
    settings: Mapping[str, str] = field(default_factory=dict)
    measure: str = "reward"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt, with response and reward by the number of their source."""

    text: str
    answers: Mapping[int, tuple[str, float | None]]


@dataclass(frozen=True, kw_only=True)
class Browser:
    """Responses that the reader filters, sorts by largest win and loss, and turns over; the page holds them all."""

    title: str
    sources: Sequence[Source]
    prompts: Sequence[Prompt]
    caption: str = ""
    examples: int = 3
    """So many prompts are shown where no script runs, and in Markdown."""


Block = Text | Links | Table | Figure | Responses | Browser
