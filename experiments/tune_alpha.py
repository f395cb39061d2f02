"""Tuning alpha for a weak pair, as the paper does, beside how far alignment moved the weak model

Alpha is chosen from a grid over 0 to 1 by explicit reward on training prompts; what it is worth is then measured on
held-out prompts. Where alignment moved the weak model far, contrastive decoding fails: the distance stands beside it,
and a list of learning rates of the alignment shows the dependence.

    cong run experiments/tune_alpha.py --set seeds=0,1,2
    cong run experiments/tune_alpha.py --set families=qwen --set alignment_learning_rate=5e-5,1.5e-4,5e-4
"""

import dataclasses
import itertools
from collections.abc import Iterator

from cong import methods
from cong.experiment import Cell, Results
from cong.report import Block, Figure, Table
from cong.report.statistics import Estimate, difference, estimate, over_seeds, select, values_of

ALPHAS = tuple(step / 10 for step in range(11))
PLAIN = 1.0


def cells(
    scale,
    *,
    families: tuple[str, ...] | None = None,
    sizes: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] = (0,),
    alphas: tuple[float, ...] = ALPHAS,
    prompts: int = 256,
    alignment_learning_rate: tuple[float, ...] | None = None,
) -> list[Cell]:
    rates = alignment_learning_rate or (scale.alignment.learning_rate,)
    found = []
    pairs = [(family, size) for family in families or scale.sizes for size in sizes or scale.sizes[family][:1]]
    for seed, (family, size), rate in itertools.product(seeds, pairs, rates):
        chosen = dataclasses.replace(scale, alignment=dataclasses.replace(scale.alignment, learning_rate=rate))
        t = methods.transition(family, weak=size, strong=size, scale=chosen, seed=seed)
        common = {"pair": f"{family} {size}, lr {rate:g}", "seed": seed}
        found.append(Cell(stage=methods.alignment_distance(t), axes={"of": "distance", **common}))
        for alpha in dict.fromkeys((*alphas, PLAIN)):
            for where, count in (("training", prompts), ("held-out", None)):
                stage = methods.evaluate_contrastive(t, alpha=alpha, tuning=count)
                found.append(Cell(stage=stage, axes={"on": where, "alpha": alpha, **common}))
    return found


def report(results: Results) -> Iterator[Block]:
    yield _tuned(results)
    yield _curves(results)


def _tuned(results: Results) -> Table:
    rows = []
    for pair in values_of(results, "pair"):
        found = select(results, pair=pair)
        best = {seed: _best_alpha(select(found, seed=seed)) for seed in values_of(found, "seed")}
        tuned = [one for seed, alpha in best.items() for one in select(found, on="held-out", seed=seed, alpha=alpha)]
        plain = select(found, on="held-out", alpha=PLAIN)
        distance = select(found, of="distance")
        rows.append(
            (
                pair,
                ", ".join(f"{alpha:g}" for alpha in best.values()),
                str(_over(tuned, "reward")),
                str(difference(tuned, plain, "reward")),
                str(estimate(distance, "reward")),
                f"{estimate(distance, 'implicit_per_token').mean:.3f}",
            )
        )
    seeds = len(values_of(results, "seed"))
    over = "Student's t over seeds" if seeds > 1 else "bootstrap over prompts"
    return Table(
        title="Tuned alpha, and how far alignment moved the weak model",
        columns=(
            "weak pair",
            "alpha per seed",
            "reward",
            "gain over alpha 1",
            "distance, nats per response",
            "per token",
        ),
        rows=rows,
        caption=f"Alpha is the best by explicit reward on training prompts; rewards are of greedy responses to held-out"
        f" prompts, with 95 % intervals ({over}). The distance is KL(pi_r || pi_ref) on held-out prompts: the mean of "
        "log pi_r - log pi_ref over four samples of pi_r per prompt.",
    )


def _best_alpha(found: Results) -> float:
    best = max(select(found, on="training"), key=lambda result: result.values["reward"])
    return float(best.axes["alpha"])


def _over(found: Results, measure: str) -> Estimate:
    # Results at several alphas, one per seed: they are seeds of one tuned pair.
    return over_seeds([result.values[measure] for result in found]) if len(found) > 1 else estimate(found, measure)


def _curves(results: Results) -> Figure:
    found = select(results, on="held-out")
    alphas = sorted(values_of(found, "alpha"))

    def draw(axes) -> None:
        names = (("reward", "explicit reward"), ("implicit_per_token", "implicit reward per token (nats)"))
        for panel, (name, label) in zip(axes, names, strict=True):
            for pair in values_of(found, "pair"):
                estimates = [estimate(select(found, pair=pair, alpha=alpha), name) for alpha in alphas]
                panel.plot(alphas, [e.mean for e in estimates], marker="o", markersize=4, label=pair)
                panel.fill_between(alphas, [e.low for e in estimates], [e.high for e in estimates], alpha=0.15)
            panel.set_xlabel("contrastive coefficient $\\alpha$")
            panel.set_ylabel(label)
        axes[0].legend(frameon=False, fontsize=8)

    return Figure(
        title="Reward of contrastive responses to held-out prompts",
        name="tune_alpha",
        draw=draw,
        panels=2,
        caption="Bands are 95 % intervals.",
    )
