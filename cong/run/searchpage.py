"""What the report of a search shows: its points, the best first, and the measure against every axis."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cong.experiment import value_text
from cong.experiment.axes import Axis, Search
from cong.graph.demand import count
from cong.report import Block, Figure, Table, Text
from cong.run.points import Judged


def point_text(point: Mapping[str, Any]) -> str:
    """Return a point for a reader: `alpha 0.4, beta 0.5`."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in point.items())


def search_blocks(search: Search, judged: Sequence[Judged], *, failed: int, refused: Sequence[str]) -> Iterator[Block]:
    """Yield the blocks; `refused` has a line per point that is left out."""
    if failed:
        yield Text(text=f"{failed} stage(s) failed; their points are left out.", warning=True)
    if refused:
        yield Text(text=f"{count(len(refused), 'point')} left out: {'; '.join(refused)}.", warning=True)
    numeric = [axis for axis in search.axes if all(isinstance(value, int | float) for value in axis.values)]
    if numeric:
        yield Figure(
            title=f"{search.measure} at the points of the search",
            name="search",
            panels=len(numeric),
            draw=lambda panels: _draw(panels if len(numeric) > 1 else [panels], numeric, search.measure, judged),
        )
    yield Table(
        title="Points, the best first",
        columns=("rank", *search.names, search.measure),
        rows=[
            (str(rank), *(value_text(one.point[name]) for name in search.names), f"{one.value:.4g}")
            for rank, one in enumerate(judged, start=1)
        ],
        caption="The measure is the mean over the cells of a point. The best of many points looks better than it is: "
        "measure it again on other prompts or seeds.",
    )


def _draw(panels: Any, axes: Sequence[Axis], measure: str, judged: Sequence[Judged]) -> None:
    for panel, axis in zip(panels, axes, strict=True):
        panel.plot([one.point[axis.name] for one in judged], [one.value for one in judged], "o", markersize=4)
        panel.plot(judged[0].point[axis.name], judged[0].value, "o", markersize=9, fillstyle="none", color="tab:red")
        if axis.logarithmic:
            panel.set_xscale("log")
        panel.set_xlabel(axis.name)
        panel.set_ylabel(measure)
