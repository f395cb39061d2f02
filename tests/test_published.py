"""The paper's numbers as data, and what is said about results that agree or disagree with them."""

from pathlib import Path

import pytest

from cong.data import write_rows
from cong.data.prompts import LocalFile, PromptFile
from cong.evaluation import EVALUATION
from cong.experiment import Cell, Result
from cong.graph.store import Store
from cong.paper.published import (
    BENCHMARKS,
    Published,
    change_of,
    contradictions,
    load_published,
    load_quoted,
    number,
    order_correlation,
    ranks,
)

PAPER = Path(__file__).resolve().parents[1] / "experiments" / "paper.toml"
MISPRINTED = {
    ("one model", "qwen", "Base"),
    ("one model", "llama", "Base"),
    ("one model", "llama", "DPO"),
    ("one model", "llama", "ORPO"),
    ("second judge", "qwen", "Weak SFT (post)"),
    ("raters", "qwen", "Weak SFT (post)"),
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
        found.append(Result(cell=cell, values={}, directory=path, store=Store(path)))
    return found


def test_the_papers_averages_are_the_means_of_their_cells_but_for_six_that_it_misprints() -> None:
    off = set()
    for (setting, family), block in load_published(PAPER).items():
        for method, row in block.rows.items():
            assert len(row) == len(block.columns)
            means = [number(cell) for cell in row[:-1]]
            if block.columns == BENCHMARKS and abs(sum(means) / 4 - number(row[-1])) > 0.0501:
                off.add((setting, family, method))
    assert off == MISPRINTED


def test_the_differences_of_table_2_are_those_of_its_accuracies() -> None:
    for family in ("qwen", "llama"):
        block = load_published(PAPER)["downstream", family]
        for method, row in block.rows.items():
            for column, cell in zip(block.columns, row, strict=True):
                gap = block.value(method, column) - block.value("Base", column)
                assert change_of(cell) == pytest.approx(gap, abs=0.0051)


def test_every_table_of_the_paper_is_there_and_says_so() -> None:
    published = load_published(PAPER)
    tables = {int(block.source.split()[1].rstrip(",")) for block in published.values()}
    assert tables == set(range(1, 9))
    main = published["weak to strong", "qwen"]
    assert main.cell("ConG", "LC") == "43.0±0.4"
    assert main.reference("ConG", "LC") == "table 1, Qwen2.5-7B-Instruct (Strong), ConG, LC"
    assert published["downstream", "llama"].cell("WeakTeacher", "MMLU") == ""


def test_the_gains_that_the_text_quotes_are_those_of_table_1() -> None:
    published, quoted = load_published(PAPER), load_quoted(PAPER)
    for setting, names in (("one model", ("ConG-S (self)", "ConG (self)")), ("weak to strong", ("ConG-S", "ConG"))):
        for name in names:
            averages = [published[setting, family].averages for family in ("qwen", "llama")]
            gain = sum(one[name] - one["Base"] for one in averages) / 2
            assert quoted[f"gain of {name}"].value == pytest.approx(gain, abs=0.0501)


def test_all_judges_of_the_paper_order_the_methods_alike() -> None:
    published = load_published(PAPER)
    for family in ("qwen", "llama"):
        orders = {
            tuple(sorted(block.rows, key=block.averages.__getitem__))
            for (setting, of), block in published.items()
            if setting in ("weak to strong", "second judge", "raters") and of == family
        }
        assert len(orders) == 1


def test_the_paper_has_a_block_for_every_setting_of_the_experiment() -> None:
    from cong.experiment import load
    from cong.paper.setups import across
    from cong.scales import scale

    module = load(PAPER.with_name("methods.py")).module
    published = {key: block for key, block in load_published(PAPER).items() if key[0] in module.SETTINGS}
    paper = scale("paper")
    families = {family for setting, family in published if setting == "weak to strong"}
    assert families == {*paper.sizes, *across(paper)}
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
