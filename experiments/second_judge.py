"""Table 7: the weak-to-strong methods before a second judge

At tiny scale the first judge compares the exact rewards, and the second is a program that differs from it in two ways:
it sees every reward with a normal error of 0.5, and counts 0.05 for each word, so it errs and likes length. At paper
scale the second judge is a model of the GPT-5 line, on AlpacaEval 2 and Arena-Hard.

    cong run experiments/second_judge.py --set seeds=0,1,2
    cong run experiments/second_judge.py --scale paper --profile l40x4
"""

from collections.abc import Iterator
from pathlib import Path

from cong.experiment import Cell, Results
from cong.paper import tables
from cong.paper.published import load_published
from cong.paper.setups import Setups
from cong.report import Block, Table
from cong.report.statistics import select, values_of

PAPER = Path(__file__).with_name("paper.toml")
JUDGES = ("first", "second")


def cells(scale, *, setups: Setups = Setups()) -> list[Cell]:
    found = []
    for setup in setups.of(scale):
        t = setup.transition
        for judge, contests in zip(JUDGES, (scale.contests(t.seed), scale.second_contests(t.seed)), strict=True):
            found += tables.contest_cells(t, rows=setup.rows(judge=judge), contests=contests)
    return found


def report(results: Results) -> Iterator[Block]:
    published = load_published(PAPER)
    for family in values_of(results, "family"):
        for judge, setting in zip(JUDGES, ("weak to strong", "second judge"), strict=True):
            found = select(results, family=family, judge=judge)
            yield tables.contest_table(
                f"{family}: the {judge} judge",
                tables.by_method(found, tables.WEAK_TO_STRONG),
                tables=[result for result in found if tables.is_style_table(result)],
                published=published.get((setting, family)),
            )
    yield _agreement(results)


def _agreement(results: Results) -> Table:
    rows = []
    for family in values_of(results, "family"):
        for contest in values_of(results, "benchmark"):
            first, second = (
                [
                    result
                    for result in select(results, family=family, judge=judge, benchmark=contest)
                    if "method" in result.axes
                ]
                for judge in JUDGES
            )
            ((pairs,), (order,)) = tables.judged_alike(first, second, names=JUDGES)
            kappa = "" if pairs.kappa is None else f"{pairs.kappa:.2f}"
            spearman = "" if order.spearman is None else f"{order.spearman:.2f}"
            rows.append((f"{family}, {contest}", str(pairs.items), f"{100 * pairs.agreed:.0f} %", kappa, spearman))
    return Table(
        title="How far the two judges agree",
        columns=("benchmark", "pairs", "same verdict", "Cohen's kappa", "Spearman, order of methods"),
        rows=rows,
        caption="All seeds together. The paper reports the same order of all methods before both judges.",
    )
