"""Table 8: a tenth of the comparisons rated once more, without knowing who wrote what

The responses to a tenth of the prompts, each beside the baseline's, go to raters as a page and a CSV that do not say
which is which. At paper scale people fill them in, and what they send back is given with `--set ratings=FILES`; until
then the report says where the pages are. At tiny scale the raters are simulated: three programs that see the exact
reward with a normal error. What they say is no rating by people.

    cong run experiments/raters.py --set seeds=0,1,2
    cong run experiments/raters.py --scale paper --profile l40x4
    cong run experiments/raters.py --scale paper --profile l40x4 --set ratings=ann.csv,bob.csv
"""

from collections.abc import Iterator
from pathlib import Path

from cong import methods
from cong.data import read_rows
from cong.data.prompts import LocalFile
from cong.evaluation import ExactComparison, NoisyComparison
from cong.evaluation.rating import AGREEMENT, PAGE, WIN_RATES, Ratings, RatingSample, SimulatedRaters
from cong.experiment import Cell, Results
from cong.paper import tables
from cong.paper.published import load_published
from cong.paper.setups import Setups
from cong.report import Block, Entry, Table, Text, ranked_table
from cong.report.statistics import over_seeds, select, values_of

PAPER = Path(__file__).with_name("paper.toml")
TOGETHER = "people"
"""What the stage calls all raters taken together, whoever they are."""


def cells(
    scale,
    *,
    setups: Setups = Setups(),
    share: float = 0.1,
    raters: int = 3,
    noise: float = 0.5,
    ratings: tuple[str, ...] = (),
) -> list[Cell]:
    found = []
    for setup in setups.of(scale):
        t = setup.transition
        for contest in scale.contests(t.seed):
            compared = tuple((name, methods.compete(t, model, contest)) for name, model in setup.models.items())
            sample = RatingSample(methods=compared, share=share, seed=t.seed)
            axes = {"benchmark": contest.name, **setup.axes}
            found.append(Cell(stage=sample, axes={"of": "sample", **axes}))
            files = _files(sample, contest.judge, ratings, raters=raters, noise=noise)
            if files:
                found.append(Cell(stage=Ratings(sample=sample, files=files), axes={"of": "ratings", **axes}))
    return found


def _files(sample: RatingSample, judge, ratings: tuple[str, ...], *, raters: int, noise: float) -> tuple:
    if ratings:
        # A file says in its rows which sample it rates; there is a sample per family, benchmark and seed.
        given = [LocalFile(path=path) for path in ratings]
        return tuple(file for file in given if f"{sample.sample_id}," in file.text())
    if isinstance(judge, ExactComparison | NoisyComparison):
        return (SimulatedRaters(sample=sample, world=judge.world, raters=raters, noise=noise),)
    return ()


def report(results: Results) -> Iterator[Block]:
    rated = select(results, of="ratings")
    simulated = any(isinstance(file, SimulatedRaters) for result in rated for file in _stage(result).files)
    who = "simulated raters" if simulated else "raters"
    if simulated:
        yield Text(
            title="These raters are simulated",
            text="Programs that see the exact reward with an error rated the sample. That shows that the way of a "
            "rating works, from the blinded sample to the agreement; it says nothing about people.",
            warning=True,
        )
    yield from _pages(results, rated)
    published = load_published(PAPER)
    for family in values_of(rated, "family"):
        for contest in values_of(rated, "benchmark"):
            found = select(rated, family=family, benchmark=contest)
            yield _win_rates(f"{family}, {contest}", found, who, published.get(("raters", family)))
            yield _agreement(f"{family}, {contest}", found, who)


def _stage(result) -> Ratings:
    assert isinstance(result.cell.stage, Ratings)
    return result.cell.stage


def _pages(results: Results, rated: Results) -> Iterator[Block]:
    for result in select(results, of="sample"):
        if not rated:
            yield Text(text=f"To be rated: {result.directory / PAGE}, {result.values['items']} pairs.")


def _win_rates(title: str, found: Results, who: str, published) -> Table:
    rates = [_rates(result) for result in found]
    sample = _stage(found[0]).sample
    printed = published.columns if published else ()
    rows = {
        method: [
            *(_wins([one[judge, method] for one in rates]) for judge in (TOGETHER, "judge")),
            *(
                Entry(text="", paper=published.cell(method, column))
                for column in (published.columns if published else ())
            ),
        ]
        for method, _ in sample.methods
    }
    return ranked_table(
        title=f"{title}: win rates by {who}",
        columns={f"WR, {who}": "higher", "WR, judge, same pairs": "higher", **dict.fromkeys(printed)},
        rows=rows,
        caption=f"Per cent, on {100 * sample.share:g} % of the prompts; mean and standard error over seeds, if several."
        + (f" The paper: {published.source}, by people; the raters here had no hand in those." if published else ""),
    )


def _wins(values: list[float]) -> Entry:
    return Entry(text=tables.spread(values), value=sum(values) / len(values))


def _rates(result) -> dict[tuple[str, str], float]:
    return {(row["judge"], row["method"]): row["wr"] for row in read_rows(result.directory / WIN_RATES)}


def _agreement(title: str, found: Results, who: str) -> Table:
    pairs: dict[tuple[str, str], list[dict]] = {}
    for result in found:
        for row in read_rows(result.directory / AGREEMENT):
            pairs.setdefault((row["first"], row["second"]), []).append(row)
    rows = [
        (
            " and ".join(f"all {who}" if name == TOGETHER else name for name in names),
            str(sum(one["items"] for one in several)),
            f"{100 * sum(one['agreed'] for one in several) / len(several):.0f} %",
            _mean([one["kappa"] for one in several]),
        )
        for names, several in pairs.items()
    ]
    orders = [result.values["spearman"] for result in found if result.values.get("spearman") is not None]
    order = f" Spearman correlation of the order of the methods, {who} and judge: {_mean(orders)}." if orders else ""
    return Table(
        title=f"{title}: agreement",
        columns=("who", "pairs", "same verdict", "Cohen's kappa"),
        rows=rows,
        caption=f"Means over seeds; kappa with its 95 % interval where there are several.{order}",
    )


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    if len(known) == 1:
        return f"{known[0]:.2f}"
    found = over_seeds(known)
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"
