"""The paper's numbers as data, and what is said about results that agree or disagree with them."""

from pathlib import Path

import pytest

from cong.data import write_rows
from cong.evaluation import EVALUATION
from cong.experiment import Cell, Result
from cong.prompts import LocalFile, PromptFile
from cong.report.published import Published, contradictions, load_published, order_correlation, ranks

PAPER = Path(__file__).resolve().parents[1] / "experiments" / "paper.toml"
MISPRINTED = {
    ("one model", "qwen", "Base"),
    ("one model", "llama", "Base"),
    ("one model", "llama", "DPO"),
    ("one model", "llama", "ORPO"),
}
THREE = Published(source="a table", rows={"A": ("30",), "B": ("20",), "C": ("10",)})


def results(directory: Path, method: str, *seeds: list[float]) -> list[Result]:
    """Return a method's results: per seed the rewards of its prompts."""
    found = []
    for seed, rewards in enumerate(seeds):
        path = directory / f"{method}-{seed}"
        path.mkdir()
        write_rows(path / EVALUATION, [{"prompt_id": f"p{n}", "reward": value} for n, value in enumerate(rewards)])
        cell = Cell(stage=PromptFile(file=LocalFile(path=__file__)), axes={"method": method, "seed": seed})
        found.append(Result(cell=cell, values={}, directory=path))
    return found


def test_the_papers_averages_are_the_means_of_their_cells_but_for_four_that_it_misprints() -> None:
    off = set()
    for (setting, family), block in load_published(PAPER).items():
        for method, row in block.rows.items():
            means = [float(cell.partition("±")[0]) for cell in row[:-1]]
            assert len(means) == 4
            if abs(sum(means) / 4 - float(row[-1])) > 0.051:
                off.add((setting, family, method))
    assert off == MISPRINTED


def test_the_paper_has_a_block_for_every_setting_of_the_experiment() -> None:
    from cong.experiment import load

    module = load(PAPER.with_name("methods.py")).module
    published = load_published(PAPER)
    assert {family for setting, family in published if setting == "weak to strong"} == set(module.FAMILIES)
    for (setting, family), block in published.items():
        assert set(block.rows) <= set(module.SETTINGS[setting])
        assert max(block.averages, key=block.averages.__getitem__).startswith("ConG")
        assert "table 3" in block.source if "-" in family else "table 1" in block.source


def test_equal_scores_share_a_place() -> None:
    assert ranks({"A": 1.0, "B": 3.0, "C": 1.0}) == {"A": 2, "B": 1, "C": 2}


def test_the_correlation_is_over_the_methods_that_both_have() -> None:
    assert order_correlation({"A": 3, "B": 2, "C": 1, "D": 9}, THREE) == pytest.approx(1)
    assert order_correlation({"A": 1, "B": 2, "C": 3}, THREE) == pytest.approx(-1)
    assert order_correlation({"A": 1}, THREE) != order_correlation({"A": 1}, THREE)


def test_a_pair_contradicts_the_paper_only_when_its_interval_excludes_zero(tmp_path: Path) -> None:
    found = {
        "A": results(tmp_path, "A", [1.0, 2.0], [1.1, 2.0], [1.0, 2.1]),
        # Above A in every seed by nearly the same.
        "B": results(tmp_path, "B", [2.0, 3.0], [2.1, 3.1], [2.1, 3.0]),
        # Above A on average, but not by much more than the spread over seeds.
        "C": results(tmp_path, "C", [9.0, 9.0], [0.0, 0.0], [1.0, 1.0]),
        "unpublished": results(tmp_path, "unpublished", [9.0, 9.0], [9.0, 9.0], [9.0, 9.0]),
    }
    (only,) = contradictions(found, THREE, "reward")
    assert (only.better_here, only.better_there, only.published) == ("B", "A", 10.0)
    assert only.measured.mean == pytest.approx(1.0167, abs=1e-3)
    assert 0 < only.measured.low < only.measured.mean < only.measured.high
