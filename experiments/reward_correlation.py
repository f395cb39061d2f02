"""Figure 1 (b): implicit and explicit reward of responses, by contrastive decoding and by plain sampling

A point is a response of the weak pair to a held-out prompt.

    cong run experiments/reward_correlation.py --set seeds=0,1,2
"""

from collections.abc import Iterator

from cong import methods
from cong.evaluation import EVALUATION
from cong.experiment import Cell, Results
from cong.paper import tables
from cong.paper.setups import between
from cong.report import Block, Figure, Table
from cong.report.statistics import difference, estimate, over_seeds, select, spearman, values_of

WAYS = ("contrastive decoding", "plain sampling")
COLOURS = {"contrastive decoding": "#c2571a", "plain sampling": "#1f5fbf"}


def cells(
    scale,
    *,
    families: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] = (0,),
    alpha: float | None = None,
    weak: str | None = None,
) -> list[Cell]:
    found = []
    for family in families or scale.sizes:
        for seed in seeds:
            t = between(family, weak=weak, strong=None, scale=scale, seed=seed)
            contrast = scale.alpha[family] if alpha is None else alpha
            stages = (methods.evaluate_contrastive(t, alpha=contrast), methods.naive_samples(t))
            axes = {"family": family, "seed": seed, "alpha": contrast}
            found += [Cell(stage=stage, axes={"way": way, **axes}) for way, stage in zip(WAYS, stages, strict=True)]
    return found


def report(results: Results) -> Iterator[Block]:
    for family in values_of(results, "family"):
        found = select(results, family=family)
        yield _scatter(family, found)
        yield _table(family, found)


def _scatter(family: str, found: Results) -> Figure:
    def draw(axes) -> None:
        for way in reversed(WAYS):
            rows = [row for result in select(found, way=way) for row in result.rows(EVALUATION)]
            x, y = ([row[name] for row in rows] for name in ("implicit_reward", "reward"))
            axes.scatter(x, y, s=5, alpha=0.35, linewidths=0, color=COLOURS[way], label=way)
        axes.set_xlabel("implicit reward (nats per response)")
        axes.set_ylabel("explicit reward")
        axes.legend(frameon=False, fontsize="small", markerscale=3)

    return Figure(
        title=f"{family}: explicit against implicit reward",
        name=f"reward_correlation_{family}",
        draw=draw,
        caption="All seeds. The implicit reward is log pi_r - log pi_ref of the whole response.",
    )


def _table(family: str, found: Results) -> Table:
    ways = {way: select(found, way=way) for way in WAYS}
    rows = [
        (way, str(estimate(one, "reward")), str(estimate(one, "implicit_reward")), _correlation([one]))
        for way, one in ways.items()
    ]
    contrastive, plain = ways.values()
    explicit, implicit = (str(difference(contrastive, plain, name)) for name in ("reward", "implicit_reward"))
    rows.append(("difference, paired by prompt", explicit, implicit, ""))
    rows.append(("both together", "", "", _correlation(list(ways.values()))))
    return Table(
        title=f"{family}: rewards, and their rank correlation",
        columns=("responses", "explicit reward", "implicit reward", "Spearman correlation of both"),
        rows=rows,
        caption=tables.interval_note(found) + " The paper shows a scatter plot and prints no number beside it.",
    )


def _correlation(sets: list[Results]) -> str:
    values = []
    for results in zip(*sets, strict=True):
        rows = [row for result in results for row in result.rows(EVALUATION)]
        values.append(spearman([row["implicit_reward"] for row in rows], [row["reward"] for row in rows]))
    if len(values) == 1:
        return f"{values[0]:.2f}"
    found = over_seeds(values)
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"
