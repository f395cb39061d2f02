"""The paper's tables: their rows, the cells behind them, and the blocks that show them beside the paper's numbers.

for setup in setups(scale, families=("qwen",), seeds=(0,), alpha=None, beta=0.5):
    cells += judged_cells(setup.transition, rows=setup.rows())        # "Base", "Weak SFT (pre)", ..., "ConG"
contest_table("qwen", results, published)                             # LC and WR, SC and WR, and the paper's
"""

from collections.abc import Container, Mapping, Sequence
from typing import Any

from cong import methods
from cong.data import read_rows
from cong.evaluation import ARENA_HARD_TABLE, COMPARISONS, ArenaHardJudge, ArenaHardTable, Compare
from cong.evaluation.contests import Contest
from cong.evaluation.rating import Agreement, OrderAgreement, agreements, orders
from cong.experiment import Cell, Result, Results
from cong.paper.published import Published, contradictions, order_correlation, ranks
from cong.paper.setups import Row
from cong.report.blocks import Table, Text
from cong.report.recovery import PGR, RECOVERY, SHARES_NOTE, shares, unranked
from cong.report.statistics import estimate, over_seeds, select, spearman, values_of
from cong.report.tables import Entry, ranked_table

WEAK_TO_STRONG = (
    "Base", "Weak SFT (pre)", "Weak SFT (post)", "WeakTeacher", "AuxConf", "WSPO", "ConG-S", "ConG"
)  # fmt: skip


def alpha_summary(found: Results) -> str:
    """Return per seed how the implicit reward follows alpha, and at which alpha the explicit one is best."""
    parts = []
    for seed in values_of(found, "seed"):
        one = select(found, seed=seed)
        alphas = [float(result.axes["alpha"]) for result in one]
        rho = spearman(alphas, [float(result.values["implicit_per_token"]) for result in one])
        best = max(one, key=lambda result: result.values["reward"])
        parts.append(
            f"seed {seed}: Spearman correlation of alpha and implicit reward per token {rho:.2f}, "
            f"best explicit reward {best.values['reward']:.2f} at alpha {best.axes['alpha']:g}"
        )
    return "; ".join(parts)


def judged_cells(t: methods.Transition, *, rows: Sequence[Row]) -> list[Cell]:
    """Return a cell per row for the rewards of its held-out responses, and those of the scale's benchmarks of pairs."""
    rewards = [Cell(stage=methods.evaluate(t, model), axes=axes) for axes, model in rows]
    return rewards + contest_cells(t, rows=rows, contests=t.scale.contests(t.seed))


def gap_cells(t: methods.Transition, *, axes: Mapping[str, Any], known: Container[str] = ()) -> list[Cell]:
    """Return a cell for the greedy rewards of each model between which a gap is measured, but for the known ones."""
    ends = {name: model for name, model in methods.gap_ends(t).items() if name not in known}
    return [Cell(stage=methods.evaluate(t, model), axes={"method": name, **axes}) for name, model in ends.items()]


def contest_cells(t: methods.Transition, *, rows: Sequence[Row], contests: Sequence[Contest]) -> list[Cell]:
    """Return a cell per row (its axes and its model) and benchmark, and the style-controlled table where it has one."""
    shared = {
        name: value
        for name, value in rows[0][0].items()
        if all(axes.get(name) == value for axes, _ in rows) and name != "method"
    }
    found = []
    for contest in contests:
        cells = [
            Cell(stage=methods.compete(t, model, contest), axes={**axes, "benchmark": contest.name})
            for axes, model in rows
        ]
        found += cells
        if isinstance(contest.judge, ArenaHardJudge):
            table = ArenaHardTable(models=tuple((cell.name, cell.stage) for cell in cells))  # pyright: ignore[reportArgumentType]
            found.append(Cell(stage=table, axes={**shared, "benchmark": contest.name, "of": "style control"}))
    return found


def contest_figures(results: Results, *, tables: Results) -> dict[str, list[float]]:
    """Return one method's figures in per cent, a value per seed: LC and WR, SC and WR (AH), and their mean, Avg."""
    seeds: dict[Any, dict[str, float]] = {}
    for result in results:
        seeds.setdefault(result.axes.get("seed"), {}).update(_figures(result, tables))
    names = list(next(iter(seeds.values()))) if seeds else []
    complete = [name for name in names if all(found.get(name) is not None for found in seeds.values())]
    columns = {name: [found[name] for found in seeds.values()] for name in complete}
    if columns:
        columns["Avg."] = [sum(row) / len(row) for row in zip(*columns.values(), strict=True)]
    return columns


def _figures(result: Result, tables: Results) -> dict[str, float]:
    comparison = result.cell.stage
    assert isinstance(comparison, Compare)
    for table in tables:
        assert isinstance(table.cell.stage, ArenaHardTable)
        if found := table.cell.stage.figures_of(comparison, table.rows(ARENA_HARD_TABLE)):
            return found
    return comparison.judge.figures(result.values)


def contest_table(
    title: str, found: dict[str, Results], *, tables: Results, published: Published | None, note: str = ""
) -> Table:
    """Return methods in benchmarks of pairs, beside the paper's figures and places; `found` is by method."""
    measured = {name: contest_figures(results, tables=tables) for name, results in found.items()}
    columns = [name for name in next(iter(measured.values())) if all(name in one for one in measured.values())]
    here = ranks({name: sum(one["Avg."]) for name, one in measured.items() if "Avg." in one})
    theirs = published.averages if published else {}
    there = ranks({name: value for name, value in theirs.items() if name in found})
    shown = published.columns if published else columns
    rows = {
        name: [
            *(_figure(one.get(column), published, name, column) for column in shown),
            f"{here.get(name, '')} / {there.get(name, '')}" if published else f"{here.get(name, '')}",
        ]
        for name, one in measured.items()
    }
    places = "place here / in the paper" if published else "place"
    return ranked_table(
        title=title,
        columns={**{name: "higher" if name in columns else None for name in shown}, places: None},
        rows=rows,
        caption=f"Per cent; mean and standard error over seeds, if several.{note}"
        + (f" The paper: {published.source}." if published else ""),
    )


def _figure(values: Sequence[float] | None, published: Published | None, method: str, column: str) -> Entry:
    printed = published.cell(method, column) if published else ""
    if values is None:
        return Entry(text="", paper=printed)
    return Entry(text=spread(values), value=sum(values) / len(values), paper=printed)


def spread(values: Sequence[float]) -> str:
    """Return a mean with its standard error over seeds; the mean alone where there is one seed."""
    if len(values) < 2:
        return f"{values[0]:.1f}"
    found = over_seeds(list(values))
    return f"{found.mean:.1f}±{found.error:.1f}"


def reward_table(
    title: str,
    found: dict[str, Results],
    published: Published | None,
    *,
    ends: Mapping[str, Results] | None = None,
    shares_note: str = SHARES_NOTE,
) -> Table:
    """Return methods by reward, beside the paper's average and both places; `found` is by method.

    `ends` are the models between which a gap is measured, by their names: then PGR and Recovery stand in the last
    columns, and below the methods those of the ends that are no row yet.
    """
    theirs = published.averages if published else {}
    here = ranks({name: mean_reward(results) for name, results in found.items() if name in theirs})
    there = ranks({name: score for name, score in theirs.items() if name in found})
    gap = {**ends, **found} if ends else {}
    rows = {
        name: [
            *_measured(results),
            f"{theirs[name]:.1f}" if name in theirs else "",
            f"{here[name]} / {there[name]}" if name in theirs else "",
            *(shares(name, gap) if gap else ()),
        ]
        for name, results in found.items()
    }
    below = {name: results for name, results in (ends or {}).items() if results not in found.values()}
    rows |= {name: [*unranked(_measured(one)), "", "", *unranked(shares(name, gap))] for name, one in below.items()}
    source = f" The paper's average: {published.source}." if published else ""
    return ranked_table(
        title=title,
        columns={
            "reward, greedy": "higher",
            "wins against base": "higher",
            "tokens": None,
            "paper's average": None,
            "place here / in the paper": None,
            **(dict.fromkeys((PGR, RECOVERY), "higher") if ends else {}),
        },
        rows=rows,
        caption=interval_note(found["Base"]) + source + (f" {shares_note}" if ends else ""),
    )


def _measured(results: Results) -> list[Entry]:
    return [Entry.of(estimate(results, measure)) for measure in ("reward", "win_rate", "tokens")]


def disagreements(found: dict[str, Results], published: Published) -> Text:
    """Return how the order of the methods agrees with the paper's, and every pair that surely does not."""
    rho = order_correlation({name: mean_reward(results) for name, results in found.items()}, published)
    pairs = [
        f"{pair.better_here} above {pair.better_there} by {pair.measured} (the paper has it {pair.published:.1f} below)"
        for pair in contradictions(found, published, "reward")
    ]
    listed = "; ".join(pairs) if pairs else "none"
    return Text(
        text=f"Spearman correlation of the order with the paper's: {rho:.2f}. Pairs of methods in the other order than "
        f"in the paper, by a difference paired by prompt whose 95 % interval excludes 0: {listed}."
    )


def mean_reward(results: Results) -> float:
    """Return the mean reward over seeds."""
    return estimate(results, "reward").mean


def interval_note(results: Results) -> str:
    """Return what the intervals of these results are."""
    seeds = len(values_of(results, "seed"))
    over = "Student's t over seeds" if seeds > 1 else "bootstrap over prompts; the spread between seeds is not in it"
    return f"Mean and 95 % interval ({over}); {seeds} seed{'s' if seeds > 1 else ''}."


def judged_alike(
    first: Results, second: Results, *, names: tuple[str, str]
) -> tuple[list[Agreement], list[OrderAgreement]]:
    """Return how two judges agree on the same comparisons: pair by pair, and in the order of the methods."""
    judges = {name: _preferences(results) for name, results in zip(names, (first, second), strict=True)}
    return agreements(judges), orders(judges)


def _preferences(results: Results) -> dict[tuple[str, str], float]:
    return {
        (str(result.axes["method"]), f"{result.axes['seed']}/{row['prompt_id']}"): row["preference"]
        for result in results
        for row in read_rows(result.directory / COMPARISONS)
        if row["preference"] is not None
    }


def by_method(results: Results, names: Sequence[str]) -> dict[str, Results]:
    """Return the results of each method that has any."""
    found = {name: select(results, method=name) for name in names}
    return {name: results for name, results in found.items() if results}


def is_contest(result: Result) -> bool:
    """Tell whether a result is of a benchmark of pairs."""
    return "benchmark" in result.axes


def is_style_table(result: Result) -> bool:
    """Tell whether a result is the table of style-controlled figures."""
    return result.axes.get("of") == "style control"
