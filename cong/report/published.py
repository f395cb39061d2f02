"""Measured results beside published ones: the order of the methods, and which differences contradict it.

    published = load_published(Path("paper.toml"))["weak to strong", "qwen"]
    agreement(results_per_method, published, "reward")

Only the order is compared: a reward of the synthetic world and a win rate on AlpacaEval have no common scale.
"""

import itertools
import tomllib
from dataclasses import dataclass
from pathlib import Path

from cong.experiment import Results
from cong.report.statistics import Estimate, difference, spearman


@dataclass(frozen=True, kw_only=True)
class Published:
    """One block of a published table."""

    source: str
    rows: dict[str, tuple[str, ...]]
    """Method to its cells as printed, the average last."""

    @property
    def averages(self) -> dict[str, float]:
        """Return method to printed average."""
        return {method: float(cells[-1]) for method, cells in self.rows.items()}


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
            source=block["source"], rows={method: tuple(cells) for method, cells in block["rows"].items()}
        )
        for setting, blocks in content.items()
        for family, block in blocks.items()
    }


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
