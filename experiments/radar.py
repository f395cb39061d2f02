"""Figure 1 (c): the weak-to-strong methods in all measures at once

Two radar charts: the measures of this run, each scaled from the lowest to the highest method, and the paper's.

    cong run experiments/radar.py --set seeds=0,1,2
"""

import math
from collections.abc import Iterator
from pathlib import Path

from cong.experiment import Cell, Results
from cong.paper import tables
from cong.paper.published import Published, load_published, number
from cong.paper.setups import Setups
from cong.report import Block, Figure
from cong.report.statistics import select, values_of

PAPER = Path(__file__).with_name("paper.toml")
METHODS = ("Base", "Weak SFT (post)", "WeakTeacher", "WSPO", "ConG-S", "ConG")
Measures = dict[str, dict[str, float]]
"""Measure to method to value."""


def cells(scale, *, setups: Setups = Setups()) -> list[Cell]:
    # All methods play, those that are drawn and those that are not: style control compares at a common style.
    judged = (
        tables.judged_cells(setup.transition, rows=setup.rows(setting="weak to strong")) for setup in setups.of(scale)
    )
    return [cell for cells in judged for cell in cells]


def report(results: Results) -> Iterator[Block]:
    published = load_published(PAPER)
    families = values_of(results, "family")
    ours: Measures = {}
    theirs: Measures = {}
    for family in families:
        ours |= _measured(family, select(results, family=family))
        if ("weak to strong", family) in published:
            theirs |= _printed(family, published["weak to strong", family])

    def draw(panels) -> None:
        for axes, title, measures in zip(panels, ("here", "paper, table 1"), (ours, theirs), strict=True):
            _radar(axes, title, measures)

    yield Figure(
        title="Methods in all measures",
        name="radar",
        panels=2,
        draw=draw,
        caption="On every axis the lowest method lies at 15 % of the way and the highest at its end. The axes of the "
        "two charts are not the same measures.",
    )


def _measured(family: str, results: Results) -> Measures:
    played = [result for result in results if tables.is_contest(result)]
    style = [result for result in played if tables.is_style_table(result)]
    rewards = [result for result in results if result not in played]
    found: Measures = {f"{family} reward": {}}
    for method in METHODS:
        found[f"{family} reward"][method] = tables.mean_reward(select(rewards, method=method))
        for name, values in tables.contest_figures(select(played, method=method), tables=style).items():
            if name != "Avg.":
                found.setdefault(f"{family} {name}", {})[method] = sum(values) / len(values)
    return found


def _printed(family: str, published: Published) -> Measures:
    return {
        f"{family} {column}": {method: number(published.cell(method, column)) for method in METHODS}
        for column in published.columns[:-1]
    }


def _radar(axes, title: str, measures: Measures) -> None:
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(title, fontsize="medium", pad=14)
    angles = [math.pi / 2 - 2 * math.pi * index / max(len(measures), 1) for index in range(len(measures))]
    for angle, name in zip(angles, measures, strict=True):
        axes.plot([0, math.cos(angle)], [0, math.sin(angle)], color="0.8", linewidth=0.7)
        axes.text(1.22 * math.cos(angle), 1.12 * math.sin(angle), name, ha="center", va="center", fontsize=7)
    for method in METHODS:
        radii = [_radius(values, method) for values in measures.values()]
        x, y = ([r * f(a) for r, a in zip(radii, angles, strict=True)] for f in (math.cos, math.sin))
        axes.plot([*x, *x[:1]], [*y, *y[:1]], label=method, linewidth=2 if method.startswith("ConG") else 1)
    axes.set_xlim(-1.6, 1.6)
    axes.legend(frameon=False, fontsize=6, loc="lower center", ncols=3, bbox_to_anchor=(0.5, -0.18))


def _radius(values: dict[str, float], method: str) -> float:
    lowest, highest = min(values.values()), max(values.values())
    return 0.15 + 0.85 * (values[method] - lowest) / (highest - lowest) if highest > lowest else 1.0
