"""`Ratings`: what the raters of a `RatingSample` sent back, and how far they agree with each other and the judge.

    Ratings(sample=sample, files=(LocalFile(path="ratings-ann.csv"), LocalFile(path="ratings-bob.csv")))

A file is the CSV that the page downloads, or the sample's own table filled in: columns sample, item, rater and rating
(A, tie or B; empty where there is none); `SimulatedRaters` can stand in its place. The summary holds `kappa` of raters
and judge, all raters taken together.
"""

import csv
import io
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from cong.data import Row, read_rows, write_rows
from cong.data.prompts import LocalFile
from cong.errors import UserError
from cong.evaluation.rating.agreement import Preferences, agreements, orders, win_rates
from cong.evaluation.rating.sample import KEY, RatingSample
from cong.evaluation.rating.sample import RATINGS as CHOICES
from cong.evaluation.rating.simulated import RATED, SimulatedRaters
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work

RATINGS = "ratings.parquet"
AGREEMENT = "agreement.parquet"
ORDER = "order.parquet"
WIN_RATES = "win_rates.parquet"
JUDGE = "judge"
PEOPLE = "people"
_COLUMNS = ("sample", "item", "rater", "rating")


@dataclass(frozen=True, kw_only=True)
class Ratings(Stage):
    """The ratings of one sample. `people` is what its raters say together: the mean of their preferences."""

    sample: RatingSample
    files: tuple[LocalFile | SimulatedRaters, ...]

    def check(self) -> None:
        files = [file for file in self.files if isinstance(file, LocalFile)]
        if files or not self.files:
            self._read(files)

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def run(self, ctx: Context) -> None:
        key = {row["item"]: row for row in read_rows(ctx.path(self.sample) / KEY)}
        rows = [_rated(row, key) for row in self._read([_file(ctx, file) for file in self.files])]
        write_rows(ctx.out / RATINGS, rows)
        judges = judges_of(rows, list(key.values()))
        agreed, ordered = agreements(judges), orders(judges)
        write_rows(ctx.out / AGREEMENT, [asdict(one) for one in agreed])
        write_rows(ctx.out / ORDER, [asdict(one) for one in ordered])
        write_rows(ctx.out / WIN_RATES, _win_rates(judges))
        ctx.summary(raters=len({row["rater"] for row in rows}), ratings=len(rows), items=len(judges[PEOPLE]))
        ctx.summary(**_against_judge(agreed, ordered))

    def _read(self, files: list[LocalFile]) -> list[Row]:
        rows = [row for file in files for row in read_ratings(file, sample=self.sample.sample_id)]
        seen: set[tuple[str, str]] = set()
        for row in rows:
            if (row["rater"], row["item"]) in seen:
                raise UserError(f"{row['file']}: {row['rater']} rated item {row['item']} twice")
            seen.add((row["rater"], row["item"]))
        if not rows:
            raise UserError("the rating files hold no rating")
        return rows


def _file(ctx: Context, file: LocalFile | SimulatedRaters) -> LocalFile:
    return file if isinstance(file, LocalFile) else LocalFile(path=str(ctx.path(file) / RATED))


def read_ratings(file: LocalFile, *, sample: str) -> list[Row]:
    """Return the rated rows of a file; raise `UserError` for what is no rating of this sample."""
    reader = csv.DictReader(io.StringIO(file.text(), newline=""))
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f"{file.path} has no column {missing[0]!r}")
    rows = []
    for number, line in enumerate(reader, start=2):
        row = {name: (line[name] or "").strip() for name in _COLUMNS} | {"file": file.path}
        if row["sample"] != sample:
            raise UserError(f"{file.path}: row {number} is of sample {row['sample']!r}, not {sample!r}")
        if not row["rating"]:
            continue
        if row["rating"] not in CHOICES or not row["rater"]:
            raise UserError(f"{file.path}: row {number} needs a rater and a rating of {', '.join(CHOICES)}")
        rows.append(row)
    return rows


def judges_of(rows: list[Row], key: list[Row]) -> dict[str, Preferences]:
    """Return everybody's preferences: the judge's, each rater's, and the raters' together."""
    judges: dict[str, dict[Any, float]] = {JUDGE: {}, PEOPLE: {}}
    for item in key:
        if item["preference"] is not None:
            judges[JUDGE][item["method"], item["prompt_id"]] = item["preference"]
    everybody: dict[Any, list[float]] = {}
    for row in rows:
        item = (row["method"], row["prompt_id"])
        judges.setdefault(f"rater {row['rater']}", {})[item] = row["preference"]
        everybody.setdefault(item, []).append(row["preference"])
    judges[PEOPLE].update({item: statistics.fmean(found) for item, found in everybody.items()})
    return dict(judges)


def _win_rates(judges: dict[str, Preferences]) -> list[Row]:
    """Return every method's win rate by everybody, in per cent, on the items that people rated."""
    items = judges[PEOPLE]
    return [
        {"judge": name, "method": method, "wr": 100 * rate}
        for name, ratings in judges.items()
        for method, rate in win_rates({item: ratings[item] for item in items if item in ratings}).items()
    ]


def _rated(row: Row, key: dict[str, Row]) -> Row:
    item = key.get(row["item"])
    if item is None:
        raise UserError(f"{row['file']}: the sample has no item {row['item']!r}")
    preference = 1.5 if row["rating"] == "tie" else 2.0 if row["rating"] == item["side"] else 1.0
    return {
        "rater": row["rater"],
        "item": row["item"],
        "method": item["method"],
        "prompt_id": item["prompt_id"],
        "preference": preference,
    }


def _against_judge(agreed: list, ordered: list) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for one in agreed:
        if (one.first, one.second) == (JUDGE, PEOPLE):
            found |= {"agreed": one.agreed, "kappa": one.kappa}
    for one in ordered:
        if (one.first, one.second) == (JUDGE, PEOPLE):
            found |= {"spearman": one.spearman, "kendall": one.kendall}
    return found
