"""Table 5: what the methods cost

Hours of the trainings that lead from the strong model to a method's model, as in the paper, and of all that the
model needs: its data and the weak model's alignment too. GPU-hours, or hours of CPU cores where there was no GPU.

    cong run experiments/training_cost.py --set seeds=0,1,2
    cong run experiments/training_cost.py --scale paper --profile l40x4
"""

from collections.abc import Iterator
from pathlib import Path

from cong import methods
from cong.experiment import Cell, Results
from cong.graph.resources import Resources
from cong.paper.published import Published, load_published
from cong.paper.setups import Setups
from cong.report import Block, Entry, Text, ranked_table
from cong.report.costs import method_costs, trainings_of, unit_of
from cong.report.statistics import over_seeds, select, spearman, values_of
from cong.run.workload import estimate

PAPER = Path(__file__).with_name("paper.toml")
METHODS = ("Weak SFT (pre)", "Weak SFT (post)", "WSPO", "ConG-S", "ConG")


def cells(scale, *, setups: Setups = Setups()) -> list[Cell]:
    return [
        Cell(stage=methods.evaluate(setup.transition, model), axes=axes)
        for setup in setups.of(scale)
        for axes, model in setup.rows()
        if axes["method"] in METHODS
    ]


def remarks(cells: list[Cell], resources: Resources) -> Iterator[str]:
    """Yield a line for the end of a plan: the paper's table 5 beside what is estimated for the same."""
    for family in dict.fromkeys(str(cell.axes["family"]) for cell in cells):
        published = load_published(PAPER).get(("cost", family))
        first = {cell.axes["method"]: cell for cell in reversed(cells) if cell.axes["family"] == family}
        hours = {name: estimate(trainings_of(cell.stage), resources).gpu_hours for name, cell in first.items()}
        if published and any(hours.values()):
            told = (f"{name} {hours[name]:.1f} ({published.cell(name, 'GPU-hours')})" for name in METHODS)
            yield f"GPU-hours of training, estimated (and in the paper, {published.source}): {', '.join(told)}"


def report(results: Results) -> Iterator[Block]:
    published = load_published(PAPER)
    for family in values_of(results, "family"):
        yield from _family(family, select(results, family=family), published.get(("cost", family)))


def _family(family: str, results: Results, published: Published | None) -> Iterator[Block]:
    costs = method_costs(results)
    unit = unit_of(entry for cost in costs for entry in cost.needed)
    training = {cost.method: [entry.hours(unit) for entry in cost.training] for cost in costs}
    least = _mean(training["Weak SFT (pre)"])
    theirs = {name: published.value(name, "GPU-hours") for name in METHODS} if published else {}
    rows = {
        cost.method: [
            _entry(training[cost.method], f"{theirs[cost.method]:.2f}" if theirs else ""),
            _entry([entry.hours(unit) for entry in cost.needed]),
            _times(_mean(training[cost.method]) / least if least else None, theirs, cost.method),
        ]
        for cost in costs
    }
    yield ranked_table(
        title=family,
        columns=dict.fromkeys((f"{unit}-hours, training", f"{unit}-hours, all", "times Weak SFT (pre)")),
        rows=rows,
        caption="Mean, and 95 % interval over seeds where there are several; the hours that the stages held, whatever "
        "else the machine did." + (f" The paper: {published.source}, GPU-hours on 4 x L40." if published else ""),
    )
    if theirs:
        rho = spearman([_mean(training[name]) for name in METHODS], [theirs[name] for name in METHODS])
        yield Text(text=f"{family}: Spearman correlation of the methods' training hours with the paper's: {rho:.2f}.")


def _times(measured: float | None, theirs: dict[str, float], method: str) -> Entry:
    printed = f"{theirs[method] / theirs['Weak SFT (pre)']:.2f}" if theirs else ""
    return Entry(text="" if measured is None else f"{measured:.2f}", paper=printed)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _entry(values: list[float], printed: str = "") -> Entry:
    if len(values) < 2:
        return Entry(text=f"{values[0]:.4f}", paper=printed)
    found = over_seeds(values)
    return Entry(text=f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]", paper=printed)
