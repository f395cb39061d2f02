"""Figure 3 (c, d): the effect of the contrastive coefficient alpha on ConG, and of beta beside it

One curve per method and beta.

    cong run experiments/alpha_sweep.py --set seeds=0,1,2
    cong run experiments/alpha_sweep.py --grid alpha=0:1:0.1 --grid beta=0.1,0.5
    cong run experiments/alpha_sweep.py --set methods=ConG-S,ConG,Base --set seeds=0,1,2
"""

from collections.abc import Iterator

from cong import methods as ways
from cong.experiment import Cell, Results
from cong.methods import WEAK
from cong.paper import tables
from cong.report import Block, Figure, Table, Text, ranked_table
from cong.report.curves import Curve, draw_curves
from cong.report.recovery import GAP_ENDS, PGR, RECOVERY, SHARES_NOTE, shares
from cong.report.statistics import estimate, select, values_of

GRID = ("alpha=0:1:0.1",)
STUDENT = "student"
MEASURES = (("reward", "explicit reward"), ("win_rate", "win rate against base"))


def cells(
    scale,
    *,
    alpha: float = 0.4,
    beta: float = 0.5,
    methods: tuple[str, ...] = ("ConG",),
    seeds: tuple[int, ...] = (0,),
    family: str = "qwen",
) -> list[Cell]:
    weak, strong = scale.sizes[family]
    found = []
    for seed in seeds:
        t = ways.transition(family, weak=weak, strong=strong, scale=scale, seed=seed)
        known = {
            "Base": (ways.base, {}),
            "ConG-S": (ways.cong_s, {"alpha": alpha}),
            "ConG": (ways.cong, {"alpha": alpha, "beta": beta}),
        }
        for name in methods:
            if name not in known:
                raise ValueError(f"unknown method {name!r}: known are {', '.join(known)}")
            make, settings = known[name]
            axes = {"method": name, **settings, "seed": seed, "family": family, "weak": weak, "strong": strong}
            found.append(Cell(stage=ways.evaluate(t, make(t, **settings)), axes=axes))
        ends = {"seed": seed, "family": family, "weak": weak, "strong": strong}
        found += tables.gap_cells(t, axes=ends, known=(*methods, WEAK))
    return found


def report(results: Results) -> Iterator[Block]:
    swept = [result for result in results if "alpha" in result.axes]
    alphas, series = values_of(swept, "alpha"), _series(swept)
    yield Figure(
        title="Effect of the contrastive coefficient",
        name="alpha_sweep",
        panels=len(MEASURES),
        draw=lambda panels: _draw(panels, series),
        caption="Held-out prompts, greedy; bars are 95 % intervals over seeds (over prompts when there is one seed). "
        "Curves stand a little beside each other, so that none hides another.",
    )
    yield Table(
        title="Reward",
        columns=("alpha", *series),
        rows=[
            (f"{alpha:g}", *(str(estimate(select(found, alpha=alpha), "reward")) for found in series.values()))
            for alpha in alphas
        ],
    )
    yield _shares(results, series)
    yield Text(text="; ".join(_best(label, found, alphas) for label, found in series.items()) + ".")


def _shares(results: Results, series: dict[str, Results]) -> Table:
    ends = tables.by_method(results, GAP_ENDS)
    levels = (f"{name} {estimate(found, 'reward')}" for name, found in ends.items())
    rows = {}
    for alpha in values_of([result for found in series.values() for result in found], "alpha"):
        at_alpha = (select(found, alpha=alpha) for found in series.values())
        rows[f"{alpha:g}"] = [entry for found in at_alpha for entry in shares(STUDENT, {**ends, STUDENT: found})]
    return ranked_table(
        title="Share of the gap that is recovered",
        columns={f"{label}: {share}": "higher" for label in series for share in (PGR, RECOVERY)},
        rows=rows,
        names="alpha",
        caption=f"Rewards of the ends: {'; '.join(levels)}. {SHARES_NOTE}",
    )


def _draw(panels, series: dict[str, Results]) -> None:
    for panel, (name, title) in zip(panels, MEASURES, strict=True):
        curves = [Curve.of(found, axis="alpha", measure=name, label=label) for label, found in series.items()]
        draw_curves(panel, curves, x="contrastive coefficient $\\alpha$", y=title)


def _series(results: Results) -> dict[str, Results]:
    """One curve per method and beta."""
    found: dict[str, Results] = {}
    for result in results:
        beta = f", beta {result.axes['beta']:g}" if "beta" in result.axes else ""
        found.setdefault(f"{result.axes['method']}{beta}", []).append(result)
    return found


def _best(label: str, results: Results, alphas: list[float]) -> str:
    best = max(alphas, key=lambda alpha: estimate(select(results, alpha=alpha), "reward").mean)
    return f"{label}: best mean reward at alpha {best:g}"
