"""The effect of beta of Stage II: ConG over beta, with everything before it shared

One curve per method and alpha.

    cong run experiments/beta_sweep.py --set seeds=0,1,2
    cong run experiments/beta_sweep.py --grid beta=0.05,0.1,0.2,0.5,1
"""

from collections.abc import Iterator

from cong import methods
from cong.experiment import Cell, Results
from cong.report import Block, Figure, Table
from cong.report.curves import Curve, draw_curves
from cong.report.statistics import difference, estimate, select, values_of

GRID = ("beta=0.1,0.2,0.5,1",)


def cells(
    scale, *, beta: float = 0.5, alpha: float | None = None, seeds: tuple[int, ...] = (0,), family: str = "qwen"
) -> list[Cell]:
    alpha = scale.alpha[family] if alpha is None else alpha
    weak, strong = scale.sizes[family]
    found = []
    for seed in seeds:
        t = methods.transition(family, weak=weak, strong=strong, scale=scale, seed=seed)
        common = {"alpha": alpha, "seed": seed, "family": family, "weak": weak, "strong": strong}
        first, second = methods.cong_s(t, alpha=alpha), methods.cong(t, alpha=alpha, beta=beta)
        found.append(Cell(stage=methods.evaluate(t, first), axes={"method": "ConG-S", **common}))
        found.append(Cell(stage=methods.evaluate(t, second), axes={"method": "ConG", "beta": beta, **common}))
    return found


def report(results: Results) -> Iterator[Block]:
    first, swept = select(results, method="ConG-S"), select(results, method="ConG")
    betas = values_of(swept, "beta")
    yield Figure(
        title="Effect of beta",
        name="beta_sweep",
        draw=lambda axes: draw_curves(
            axes,
            [Curve.of(swept, axis="beta", measure="reward", label="ConG")],
            x="$\\beta$ of Stage II",
            y="explicit reward",
            level=("ConG-S", estimate(first, "reward").mean),
            logarithmic=True,
        ),
        caption="Held-out prompts, greedy; bars are 95 % intervals over seeds (over prompts when there is one seed).",
    )
    yield Table(
        title="Reward of ConG, and its gain over ConG-S, paired by prompt",
        columns=("beta", "reward", "gain"),
        rows=[
            (
                f"{beta:g}",
                str(estimate(select(swept, beta=beta), "reward")),
                str(difference(select(swept, beta=beta), first, "reward")),
            )
            for beta in betas
        ],
    )
