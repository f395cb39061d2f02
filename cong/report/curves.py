"""Curves of a measure along an axis with intervals over seeds, and matrices of who beats whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cong.evaluation import EVALUATION
from cong.experiment import Results
from cong.report.statistics import Estimate, estimate, select, values_of

BESIDE = 4.0
"""Points (1/72 inch) between curves at the same place of their axis."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A measure at each value of an axis."""

    label: str
    x: Sequence[float]
    estimates: Sequence[Estimate]

    @classmethod
    def of(cls, results: Results, *, axis: str, measure: str, label: str) -> "Curve":
        """Return the curve of results along an axis, in rising order."""
        values = sorted(values_of(results, axis))
        return cls(label=label, x=values, estimates=[estimate(select(results, **{axis: v}), measure) for v in values])


def draw_curves(
    axes: Any,
    curves: Sequence[Curve],
    *,
    x: str,
    y: str,
    level: tuple[str, float] | None = None,
    logarithmic: bool = False,
) -> None:
    """Draw curves with error bars, a little beside each other; `level` is a named horizontal line to compare with."""
    from matplotlib.transforms import ScaledTranslation

    for number, (curve, marker) in enumerate(zip(curves, "osD^vP*X" * (1 + len(curves) // 8), strict=False)):
        means = [found.mean for found in curve.estimates]
        below = [found.mean - found.low for found in curve.estimates]
        above = [found.high - found.mean for found in curve.estimates]
        bars = axes.errorbar(
            curve.x, means, yerr=[below, above], marker=marker, markersize=4, capsize=2, label=curve.label
        )
        # Equal curves would hide each other. Moved once drawn: what is moved does not count for the limits of axes.
        beside = ScaledTranslation(BESIDE * (number - (len(curves) - 1) / 2) / 72, 0, axes.figure.dpi_scale_trans)
        for artist in bars.get_children():
            artist.set_transform(artist.get_transform() + beside)
    if level:
        axes.axhline(level[1], color="0.4", linestyle="--", linewidth=1, label=level[0])
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xticks(list(curves[0].x), [f"{value:g}" for value in curves[0].x])
        axes.minorticks_off()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if len(curves) > 1 or level:
        axes.legend(frameon=False, fontsize="small")


def win_matrix(results: Results, *, axis: str, measure: str) -> tuple[list[float], list[list[float]]]:
    """Return the axis's values and, per row and column, the share of prompts on which the row's value wins.

    Prompts are joined by seed and prompt_id; ties count one half.
    """
    values = sorted(values_of(results, axis))
    scores = {
        value: {
            (result.axes["seed"], row["prompt_id"]): row[measure]
            for result in select(results, **{axis: value})
            for row in result.rows(EVALUATION)
        }
        for value in values
    }
    return values, [[_share(scores[one], scores[other]) for other in values] for one in values]


def _share(ours: dict, theirs: dict) -> float:
    shared = ours.keys() & theirs.keys()
    return sum((ours[key] > theirs[key]) + (ours[key] == theirs[key]) / 2 for key in shared) / len(shared)


def draw_wins(axes: Any, values: Sequence[float], shares: Sequence[Sequence[float]], *, label: str) -> None:
    """Draw a matrix of win rates with its numbers in percent."""
    axes.imshow(shares, cmap="RdBu", vmin=0, vmax=1)
    ticks = [f"{value:g}" for value in values]
    axes.set_xticks(range(len(values)), ticks, fontsize="small")
    axes.set_yticks(range(len(values)), ticks, fontsize="small")
    axes.set_xlabel(f"{label} of the column")
    axes.set_ylabel(f"{label} of the row")
    axes.grid(visible=False)
    for row, line in enumerate(shares):
        for column, share in enumerate(line):
            shade = "white" if abs(share - 0.5) > 0.3 else "black"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=6, color=shade)
