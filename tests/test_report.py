"""What reports say and how they are written, as far as that can be seen without a browser."""

import itertools
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pages
import pytest

from cong.data import write_rows
from cong.data.prompts import LocalFile, PromptFile
from cong.evaluation import COMPARISONS, Compare, ExactComparison
from cong.experiment import Cell, Result
from cong.graph.store import Store
from cong.report import Browser, Entry, Responses, Table, Text, ranked_table, write_report
from cong.report.browser import as_json, browse, examples
from cong.report.curves import Curve, draw_curves
from cong.report.statistics import Estimate
from cong.report.tables import places
from cong.synthetic.world import World


class Page(HTMLParser):
    """The elements of a page: tag, attributes and text of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict, list[str]]] = []
        self._open: list[int] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))
        if tag not in ("meta", "br", "img", "input", "link"):
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag):
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data):
        for index in self._open:
            self.elements[index][2].append(data)

    def texts(self, tag: str, **wanted: str) -> list[str]:
        """Return the texts of the elements with a tag and attributes."""
        return [
            "".join(text)
            for name, attrs, text in self.elements
            if name == tag and all(attrs.get(key.rstrip("_")) == value for key, value in wanted.items())
        ]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return pages.write_page(tmp_path)


def written(tmp_path: Path, *blocks) -> tuple[Page, str]:
    """Return page and Markdown of some blocks."""
    report = write_report(tmp_path, name="page", title="A page", description="", blocks=blocks)
    return Page(report.page.read_text()), (tmp_path / "page.md").read_text()


@pytest.mark.parametrize(
    ("values", "better", "expected"),
    [
        ([1.0, 3.0, 2.0], "higher", (1, 2)),
        ([1.0, 3.0, 2.0], "lower", (0, 2)),
        ([1.0, 3.0, 2.0], None, (None, None)),
        ([1.0, None, 2.0, math.nan], "higher", (2, 0)),
        ([2.0, 1.0, 2.0, 0.0], "higher", ((0, 2), None)),
        ([2.0, 1.0, 1.0], "higher", (0, (1, 2))),
        ([2.0, 2.0], "higher", (None, None)),
        ([2.0], "higher", (None, None)),
        ([], "lower", (None, None)),
    ],
)
def test_best_and_second_are_those_of_the_numbers(values, better, expected):
    assert places(values, better=better) == expected


def test_the_best_is_bold_and_the_second_underlined_on_the_page_and_in_markdown(tmp_path):
    table = ranked_table(
        title="Methods",
        columns={"reward": "higher", "KL": "lower", "tokens": None},
        rows={
            "Base": [Entry(text="0.10", value=0.1), Entry(text="1", value=1), "30"],
            "ConG-S": [Entry.of(Estimate(mean=0.3, low=0.2, high=0.4, seeds=3)), Entry(text="3", value=3), "31"],
            "ConG": [Entry(text="0.20", value=0.2), Entry(text="2", value=2), "32"],
            "Failed": [Entry(text="nan", value=math.nan), "", "<b>|</b>"],
        },
    )
    html, markdown = written(tmp_path, table)
    assert html.texts("td", class_="best") == ["1", "0.30 [0.20, 0.40]"]
    assert html.texts("td", class_="second") == ["0.20", "2"]
    assert "<b>|</b>" in html.texts("td")
    assert [line for line in markdown.splitlines() if line.startswith("|")] == [
        "| method | reward | KL | tokens |",
        "|---|---|---|---|",
        "| Base | 0.10 | **1** | 30 |",
        "| ConG-S | **0.30 [0.20, 0.40]** | 3 | 31 |",
        "| ConG | <u>0.20</u> | <u>2</u> | 32 |",
        "| Failed | nan |  | &lt;b&gt;\\|&lt;/b&gt; |",
    ]


def test_the_papers_number_stands_beside_the_measured_one_and_says_that_it_is_the_papers(tmp_path):
    rows = {"Base": [Entry(text="30.1", value=30.1, paper="32.3±0.4")], "ConG": [Entry(text="41.0", value=41.0)]}
    html, markdown = written(tmp_path, ranked_table(title="LC", columns={"LC": "higher"}, rows=rows))
    assert html.texts("td", class_="second") == ["30.1paper: 32.3±0.4"]
    assert html.texts("span", class_="paper") == ["paper: 32.3±0.4"]
    assert "| Base | <u>30.1</u> (paper: 32.3±0.4) |" in markdown
    assert "| ConG | **41.0** |" in markdown


@pytest.mark.parametrize(
    ("mean", "error", "text", "value"),
    [
        (43.04, 0.41, "43.0 ± 0.4", 43.04),
        (43.04, None, "43.0", 43.04),
        (43.04, math.nan, "43.0", 43.04),
        (None, None, "none", None),
        (math.nan, 1.0, "none", None),
    ],
)
def test_a_mean_is_printed_with_its_standard_error_where_there_is_one(mean, error, text, value):
    assert Entry.with_error(mean, error, paper="43.0±0.4") == Entry(text=text, value=value, paper="43.0±0.4")


def test_a_table_of_before_keeps_its_meaning(tmp_path):
    table = Table(title="Old", columns=("method", "reward"), rows=[("A", "1"), ("B", "2")], best=(None, 1))
    html, markdown = written(tmp_path, table, Text(text="no title"))
    assert html.texts("td", class_="best") == ["2"]
    assert html.texts("h2") == ["Old"]
    assert "| B | **2** |" in markdown


def test_hostile_texts_are_neither_markup_nor_script_nor_markdown(page):
    html = Page(page.read_text())
    data = json.loads(html.texts("script", type="application/json")[0])
    assert pages.HOSTILE in data["texts"]
    # The data and the browser's own program; nothing came in with a text.
    assert len(html.texts("script")) == 2
    assert [attrs["alt"] for tag, attrs, _ in html.elements if tag == "img"] == ["Curve"]
    markdown = page.with_suffix(".md").read_text()
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?\n\1$", "", markdown)
    assert "question 03" not in outside
    assert "![x]" not in outside


def test_hostile_texts_are_shown_as_they_are_without_a_script(tmp_path):
    texts = {"A": f"{pages.HOSTILE} ````"}
    html, markdown = written(tmp_path, Responses(title="Texts", prompts=[("a <b>prompt</b>\n| of two lines", texts)]))
    assert html.texts("dd") == [texts["A"]]
    assert html.texts("div", class_="prompt")[0].startswith("a <b>prompt</b>\n| of two lines")
    assert f"`````text\n{texts['A']}\n`````" in markdown


def test_a_page_asks_nothing_of_anybody(page):
    html = Page(page.read_text())
    given = [attrs[name] for _, attrs, _ in html.elements for name in ("src", "href", "srcset") if name in attrs]
    assert [value[:22] for value in given] == ["data:image/png;base64,"]
    assert not {"link", "iframe", "object", "form"} & {tag for tag, _, _ in html.elements}
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", "".join(html.texts("style")))
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(|innerHTML", html.texts("script")[-1])


def test_what_a_reader_chooses_among_are_the_axes_that_vary(tmp_path):
    browser = browse(pages.results(tmp_path))
    assert browser is not None
    named = [(one.model, dict(one.settings), one.measure) for one in browser.sources]
    assert named == [(method, {"seed": str(seed)}, "reward") for method in pages.METHODS for seed in pages.SEEDS]
    # Both seeds have a prompt p0, and it is not the same prompt.
    assert len(browser.prompts) == 2 * pages.PROMPTS
    assert {tuple(one.answers) for one in browser.prompts} == {(0, 2, 4), (1, 3, 5)}
    assert browser.caption.startswith("All 50 prompts are on this page.")


def test_cells_of_one_method_are_told_apart_by_the_axes_that_it_takes(tmp_path):
    found = pages.results(tmp_path)[::2]
    swept = [
        *({"method": "ConG", "alpha": alpha, "beta": 0.5, "seed": 0} for alpha in (0.1, 0.4)),
        {"method": "Base", "seed": 0},
        *({"pair": "contrastive", "alpha": alpha, "seed": 0} for alpha in (0.1, 0.4)),
    ]
    directories = [result.directory for result in found]
    stage = found[0].cell.stage
    results = [
        Result(
            cell=Cell(stage=stage, axes=axes),
            values={},
            directory=directories[index % 3],
            store=Store(directories[index % 3]),
        )
        for index, axes in enumerate(swept)
    ]
    browser = browse(results)
    assert browser is not None
    assert [one.model for one in browser.sources] == [
        "ConG, alpha 0.1",
        "ConG, alpha 0.4",
        "Base",
        "alpha 0.1, pair contrastive",
        "alpha 0.4, pair contrastive",
    ]
    assert all(one.settings == {} for one in browser.sources)


def test_a_comparison_is_browsed_by_its_preferences(tmp_path):
    rows = [
        {"prompt_id": "p", "prompt": "a prompt", "response": "ours", "baseline_response": "theirs", "preference": 1.9},
        {"prompt_id": "q", "prompt": "another", "response": None, "baseline_response": "theirs", "preference": None},
    ]
    write_rows(tmp_path / COMPARISONS, rows)
    texts = PromptFile(file=LocalFile(path=__file__))
    compared = Compare(responses=texts, baseline=texts, judge=ExactComparison(world=World()))
    cell = Cell(stage=compared, axes={"method": "ConG"})
    browser = browse([Result(cell=cell, values={}, directory=tmp_path, store=Store(tmp_path))])
    assert browser is not None
    assert [(one.model, one.measure) for one in browser.sources] == [("ConG", "preference")]
    assert [(one.text, one.answers[0][0]) for one in browser.prompts] == [("a prompt", "ours")]
    assert browser.prompts[0].answers[0][1] == pytest.approx(0.9)
    assert "preference" in browser.caption


def test_results_without_responses_have_no_browser(tmp_path):
    cell = Cell(stage=PromptFile(file=LocalFile(path=__file__)), axes={"method": "ConG"})
    assert browse([Result(cell=cell, values={}, directory=tmp_path, store=Store(tmp_path))]) is None
    assert browse([]) is None


def test_a_page_holds_as_many_prompts_as_fit_evenly_spaced_and_says_so(tmp_path):
    results = pages.results(tmp_path)
    whole = browse(results)
    assert whole is not None
    size = len(as_json(whole)) // 2
    browser = browse(results, size=size)
    assert browser is not None
    count = len(browser.prompts)
    assert 10 <= count < 50
    assert len(as_json(browser)) <= size
    assert browser.caption.startswith(f"{count} of 50 prompts, evenly spaced, are on this page.")
    taken = [whole.prompts.index(one) for one in browser.prompts]
    gaps = [after - before for before, after in itertools.pairwise(taken)]
    assert max(gaps) - min(gaps) <= 1
    one = browse(results, size=1)
    assert one is not None
    assert len(one.prompts) == 1


def test_a_reward_that_is_no_number_leaves_the_page_readable(tmp_path):
    found = pages.results(tmp_path)[:1]
    rows = [{"prompt_id": "p", "prompt": "a", "response": "b", "reward": value} for value in (math.nan, math.inf)]
    write_rows(found[0].directory / "evaluation.parquet", [rows[0], rows[1] | {"prompt_id": "q"}])
    browser = browse(found)
    assert browser is not None
    assert [one["answers"]["0"][1] for one in json.loads(as_json(browser))["prompts"]] == [None, None]
    assert examples(browser).prompts == [("a", {"Base": "b"}), ("a", {"Base": "b"})]


def test_without_a_script_the_page_shows_examples_of_the_first_settings(page):
    html = Page(page.read_text())
    assert len(html.texts("div", class_="prompt")) == Browser.examples
    assert html.texts("dt")[:3] == list(pages.METHODS)
    assert html.texts("dd")[:3] == ["Base says 0  (1.00)", "ConG-S says 0  (0.00)", "ConG says 0  (1.00)"]
    assert all("hidden" in attrs for _, attrs, _ in html.elements if attrs.get("class") in ("controls", "pages"))


def test_equal_curves_stand_beside_each_other_and_within_the_axes():
    from matplotlib.figure import Figure as Drawing

    axes: Any = Drawing().subplots()
    estimates = [Estimate(mean=mean, low=mean - 0.1, high=mean + 0.1, seeds=1) for mean in (5.0, 6.0)]
    draw_curves(axes, [Curve(label=name, x=[2.0, 3.0], estimates=estimates) for name in "ab"], x="x", y="y")
    one, other = (drawn.lines[0] for drawn in axes.containers)
    gap = other.get_transform().transform(other.get_xydata()) - one.get_transform().transform(one.get_xydata())
    assert gap[:, 0] == pytest.approx(4 / 72 * axes.figure.dpi)
    assert gap[:, 1] == pytest.approx(0)
    assert axes.get_xlim()[0] < 2 < 3 < axes.get_xlim()[1]
    assert axes.get_ylim()[0] < 4.9 < 6.1 < axes.get_ylim()[1]
