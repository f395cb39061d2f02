"""Figure 2: implicit and explicit reward, length, and win rates of contrastive decoding against alpha

The weak pair's own contrastive responses to the held-out prompts, for all families.

    cong run experiments/alpha_rewards.py --set seeds=0,1,2
"""

from collections.abc import Iterator

from cong import methods
from cong.experiment import Cell, Results
from cong.paper import tables
from cong.report import Block, Figure, Text
from cong.report.curves import Curve, draw_curves, draw_wins, win_matrix
from cong.report.statistics import select, values_of

GRID = ("alpha=0:1:0.1",)
MEASURES = (
    ("reward", "explicit reward"),
    ("implicit_per_token", "implicit reward per token (nats)"),
    ("tokens", "length (tokens)"),
)


def cells(
    scale, *, alpha: float = 0.4, seeds: tuple[int, ...] = (0,), families: tuple[str, ...] | None = None
) -> list[Cell]:
    found = []
    for family in families or scale.sizes:
        weak, strong = scale.sizes[family]
        for seed in seeds:
            t = methods.transition(family, weak=weak, strong=strong, scale=scale, seed=seed)
            axes = {"family": family, "weak": weak, "alpha": alpha, "seed": seed}
            found.append(Cell(stage=methods.evaluate_contrastive(t, alpha=alpha), axes=axes))
    return found


def report(results: Results) -> Iterator[Block]:
    for family in values_of(results, "family"):
        found = select(results, family=family)
        yield _curves(family, found)
        yield _wins(family, found)
        yield _text(family, found)


def _curves(family: str, found: Results) -> Figure:
    return Figure(
        title=f"{family}: rewards and length against alpha",
        name=f"alpha_rewards_{family}",
        panels=len(MEASURES),
        draw=lambda panels: _draw(panels, found),
        caption="Greedy contrastive responses to the held-out prompts; the bars are 95 % intervals over seeds "
        "(over prompts when there is one seed).",
    )


def _draw(panels, found: Results) -> None:
    for panel, (name, title) in zip(panels, MEASURES, strict=True):
        curve = Curve.of(found, axis="alpha", measure=name, label=title)
        draw_curves(panel, [curve], x="contrastive coefficient $\\alpha$", y=title)


def _wins(family: str, found: Results) -> Figure:
    alphas, shares = win_matrix(found, axis="alpha", measure="reward")
    return Figure(
        title=f"{family}: share of prompts on which the row's alpha beats the column's",
        name=f"alpha_wins_{family}",
        draw=lambda axes: draw_wins(axes, alphas, shares, label="$\\alpha$"),
        caption="By explicit reward, ties count one half, all seeds together.",
    )


def _text(family: str, found: Results) -> Text:
    return Text(text=f"{family}, {tables.alpha_summary(found)}.")
