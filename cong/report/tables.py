"""Tables that rank: the best of each column bold, the second underlined, the paper's number beside the measured one.

ranked_table(
    title="AlpacaEval 2",
    columns={"LC": "higher", "WR": "higher", "tokens": None},
    rows={"ConG": [Entry.of(lc, paper="43.0±0.4"), Entry.of(wr, paper="51.9±1.6"), "312"], "Base": ...},
)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cong.report.blocks import Place, Table
from cong.report.statistics import Estimate

Better = Literal["higher", "lower"] | None
"""Which numbers of a column are the better ones; None ranks nothing."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A cell: what is printed, the number by which it is ranked, and what the paper has in its place."""

    text: str
    value: float | None = None
    paper: str = ""

    @classmethod
    def of(cls, estimate: Estimate, *, paper: str = "") -> "Entry":
        """Return an estimate as a cell: its mean and interval, ranked by its mean."""
        return cls(text=str(estimate), value=estimate.mean, paper=paper)

    @classmethod
    def with_error(cls, mean: float | None, error: float | None, *, digits: int = 1, paper: str = "") -> "Entry":
        """Return a mean and its standard error as a cell, `43.0 ± 0.4`; a mean of None was not to be had."""
        if mean is None or math.isnan(mean):
            return cls(text="none", paper=paper)
        known = error is not None and not math.isnan(error)
        return cls(text=f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if known else ""), value=mean, paper=paper)


def ranked_table(
    *,
    title: str,
    columns: Mapping[str, Better],
    rows: Mapping[str, Sequence[Entry | str]],
    names: str = "method",
    caption: str = "",
) -> Table:
    """Return a table of named rows, with best and second of every column that has a direction.

    An entry that is a text, or has no value, is not ranked.
    """
    cells = [[entry if isinstance(entry, Entry) else Entry(text=entry) for entry in row] for row in rows.values()]
    found = [
        places([row[index].value for row in cells], better=better) for index, better in enumerate(columns.values())
    ]
    paper = [("", *(entry.paper for entry in row)) for row in cells]
    return Table(
        title=title,
        columns=(names, *columns),
        rows=[(name, *(entry.text for entry in row)) for name, row in zip(rows, cells, strict=True)],
        caption=caption,
        best=(None, *(best for best, _ in found)),
        second=(None, *(second for _, second in found)),
        paper=paper if any(any(row) for row in paper) else (),
    )


def places(values: Sequence[float | None], *, better: Better = "higher") -> tuple[Place, Place]:
    """Return the rows of the best and of the second best value; equal values share a place, NaN and None have none.

    Where all values are equal, or there is only one, none is the best.
    """
    known = {row: value for row, value in enumerate(values) if value is not None and not math.isnan(value)}
    order = sorted(set(known.values()), reverse=better == "higher")
    if better is None or len(order) < 2:
        return None, None
    first, second = (tuple(row for row, value in known.items() if value == wanted) for wanted in order[:2])
    # Two equally good ones fill both places.
    return _place(first), _place(second) if len(first) == 1 else None


def _place(rows: tuple[int, ...]) -> Place:
    return rows[0] if len(rows) == 1 else rows
