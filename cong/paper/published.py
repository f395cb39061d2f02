"""Measured results beside published ones: the order of the methods, and which differences contradict it.

    published = load_published(Path("paper.toml"))["weak to strong", "qwen"]
    published.cell("ConG", "LC")                         # "43.0±0.4", and published.reference("ConG", "LC") says where
    contradictions(results_per_method, published, "reward")

Only the order is compared: a reward of the synthetic world and a win rate on AlpacaEval have no common scale.
"""

import itertools
import tomllib
from dataclasses import dataclass
from pathlib import Path

from cong.experiment import Results
from cong.report.statistics import Estimate, difference, spearman

BENCHMARKS = ("LC", "WR", "SC", "WR (AH)", "Avg.")
"""The columns of most tables: AlpacaEval 2 and Arena-Hard, and their mean."""
QUOTED = "quoted"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One block of a published table."""

    source: str
    rows: dict[str, tuple[str, ...]]
    """Method to its cells as printed, the average last where there is one."""
    columns: tuple[str, ...] = BENCHMARKS

    @property
    def averages(self) -> dict[str, float]:
        """Return method to its last number as printed: the average, where the table has one."""
        return {method: number(cells[-1]) for method, cells in self.rows.items()}

    def cell(self, method: str, column: str) -> str:
        """Return a cell as printed, empty where the paper has none."""
        cells = self.rows.get(method)
        return cells[self.columns.index(column)] if cells else ""

    def value(self, method: str, column: str) -> float:
        """Return the number of a cell, without its error or its difference."""
        return number(self.cell(method, column))

    def reference(self, method: str, column: str) -> str:
        """Return where a cell stands."""
        return f"{self.source}, {method}, {column}"


@dataclass(frozen=True, kw_only=True)
class Quoted:
    """A number that stands in the text, and where."""

    value: float
    source: str


def number(cell: str) -> float:
    """Return the first number of a cell such as `43.0±0.4` or `81.02 (-0.29)`."""
    return float(cell.partition("±")[0].partition(" ")[0])


def change_of(cell: str) -> float:
    """Return the difference that a cell such as `81.02 (-0.29)` states."""
    return float(cell.partition("(")[2].rstrip(")"))


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """Two methods that are in the other order here, by a difference whose interval does not hold 0."""

    better_here: str
    better_there: str
    measured: Estimate
    published: float
    """Difference of the published averages, `better_there` - `better_here`."""


def load_published(path: Path) -> dict[tuple[str, str], Published]:
    """Read a data file: setting and family to the published block."""
    content = tomllib.loads(path.read_text())
    return {
        (setting, family): Published(
            source=block["source"],
            rows={method: tuple(cells) for method, cells in block["rows"].items()},
            columns=tuple(block.get("columns", BENCHMARKS)),
        )
        for setting, blocks in content.items()
        if setting != QUOTED
        for family, block in blocks.items()
    }


def load_quoted(path: Path) -> dict[str, Quoted]:
    """Read the numbers of a data file that the text quotes."""
    return {name: Quoted(**entry) for name, entry in tomllib.loads(path.read_text())[QUOTED].items()}


def ranks(scores: dict[str, float]) -> dict[str, int]:
    """Return each name's place, 1 for the highest score; equal scores share a place."""
    return {name: 1 + sum(other > score for other in scores.values()) for name, score in scores.items()}


def order_correlation(scores: dict[str, float], published: Published) -> float:
    """Return Spearman's correlation of the methods that both have; NaN for fewer than two."""
    common = [method for method in scores if method in published.averages]
    if len(common) < 2:
        return float("nan")
    return spearman([scores[method] for method in common], [published.averages[method] for method in common])


def contradictions(results: dict[str, Results], published: Published, measure: str) -> list[Contradiction]:
    """Return the pairs of methods in which the difference, paired by prompt and seed, excludes the published order."""
    common = sorted((method for method in results if method in published.averages), key=published.averages.__getitem__)
    found = []
    for worse, better in itertools.combinations(common, 2):
        gap = published.averages[better] - published.averages[worse]
        measured = difference(results[worse], results[better], measure)
        if gap > 0 and measured.low > 0:
            found.append(Contradiction(better_here=worse, better_there=better, measured=measured, published=gap))
    return found
