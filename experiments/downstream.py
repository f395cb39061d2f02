"""Table 2: what alignment costs a model on downstream tasks

At paper scale the seven tasks of the paper, at tiny scale the synthetic world's own, both through lm_eval.

    cong run experiments/downstream.py --set seeds=0,1,2
    cong run experiments/downstream.py --scale paper --profile l40x4
"""

from collections.abc import Iterator
from pathlib import Path

from cong import methods
from cong.experiment import Cell, Result, Results
from cong.paper import tables
from cong.paper.published import Published, change_of, load_published
from cong.paper.setups import Setups
from cong.report import Block, Entry, Table, ranked_table
from cong.report.statistics import mean_difference, select, values_of

PAPER = Path(__file__).with_name("paper.toml")
METHODS = ("Base", "Weak SFT (pre)", "AuxConf", "WSPO", "ConG-S", "ConG")
COLUMNS = {
    "arc_easy": "ARC_E",
    "arc_challenge": "ARC_C",
    "truthfulqa_mc2": "TruthfulQA",
    "mmlu": "MMLU",
    "mathqa": "MathQA",
    "hellaswag": "HellaSwag",
    "gsm8k": "GSM8K",
}
"""Task of lm_eval to the paper's column."""


def cells(scale, *, setups: Setups = Setups()) -> list[Cell]:
    return [
        Cell(stage=methods.downstream(setup.transition, model), axes=axes)
        for setup in setups.of(scale)
        for axes, model in setup.rows()
        if axes["method"] in METHODS
    ]


def report(results: Results) -> Iterator[Block]:
    published = load_published(PAPER)
    for family in values_of(results, "family"):
        found = tables.by_method(select(results, family=family), METHODS)
        yield _table(family, found, published.get(("downstream", family)))


def tasks_of(result: Result) -> list[str]:
    """Return the tasks that a result has accuracies of."""
    return [task.name for task in getattr(result.cell.stage, "tasks", ())]


def _table(family: str, found: dict[str, Results], published: Published | None) -> Table:
    base = found["Base"]
    names = tasks_of(base[0])
    rows = {
        method: [
            *(_accuracy(results, base, name, _printed(published, method, name)) for name in names),
            _change(results, base, names, published, method),
        ]
        for method, results in found.items()
    }
    source = f" The paper: {published.source}." if published else ""
    return ranked_table(
        title=f"{family}: accuracy in per cent, and its change",
        columns={**dict.fromkeys(names, "higher"), "average change": None},
        rows=rows,
        caption="Mean over seeds; in brackets the difference from Base. Average change: over all tasks, in points, "
        f"with its 95 % interval.{source}",
    )


def _accuracy(results: Results, base: Results, name: str, printed: str) -> Entry:
    ours, theirs = (sum(result.values[name] for result in side) / len(side) for side in (results, base))
    return Entry(text=f"{100 * ours:.2f} ({100 * (ours - theirs):+.2f})", value=ours, paper=printed)


def _change(results: Results, base: Results, names: list[str], published: Published | None, method: str) -> Entry:
    gap = mean_difference(results, base, names).times(100)
    printed = [change_of(cell) for cell in published.rows[method]] if published else []
    return Entry(text=str(gap), paper=f"{sum(printed) / len(printed):+.2f}" if printed else "")


def _printed(published: Published | None, method: str, name: str) -> str:
    return published.cell(method, COLUMNS[name]) if published and name in COLUMNS else ""
