"""Ratings by people: the sample, its page in a real browser, what comes back, and the agreement between judges."""

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import toy

from cong.data import read_rows
from cong.data.prompts import LocalFile
from cong.errors import UserError
from cong.evaluation import Compare, ExactComparison, ResponseFile
from cong.evaluation.rating import (
    AGREEMENT,
    KEY,
    ORDER,
    PAGE,
    RATINGS,
    TABLE,
    WIN_RATES,
    Ratings,
    RatingSample,
    agreements,
    orders,
)
from cong.graph.runner import StageFailed
from cong.graph.store import Store
from cong.synthetic.world import CLOSING, GOOD_OPENER, PART_MARK, World, make_prompts, read_prompt

WORLD = World(categories=3, attributes=3)
METHODS = ("ConG", "ConG-S", "Weak SFT (pre)")
PROMPTS = 30


def best_response(prompt: str) -> str:
    parts = [" ".join(WORLD.right[part.subject][: part.count]) for part in read_prompt(prompt)]
    return f"{GOOD_OPENER} {f' {PART_MARK} '.join(parts)} {CLOSING}"


@pytest.fixture
def sample(tmp_path: Path) -> RatingSample:
    """Three methods that answer perfectly to every second, third and fourth prompt, and otherwise say nothing."""
    prompts = make_prompts(WORLD, split="heldout", count=PROMPTS, seed=0)

    def responses(name: str, every: int) -> ResponseFile:
        texts = [best_response(row["prompt"]) if n % every == 0 else "<script>&'\"" for n, row in enumerate(prompts)]
        rows = [{**row, "response": text} for row, text in zip(prompts, texts, strict=True)]
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
        return ResponseFile(file=LocalFile(path=str(tmp_path / name)))

    baseline, judge = responses("baseline", PROMPTS), ExactComparison(world=WORLD)
    compared = [
        Compare(responses=responses(name, every), baseline=baseline, judge=judge)
        for every, name in enumerate(METHODS, 2)
    ]
    return RatingSample(methods=tuple(zip(METHODS, compared, strict=True)), share=0.2)


@pytest.fixture
def drawn(sample: RatingSample, store: Store) -> Path:
    toy.run(store, sample)
    return store.directory(sample)


def test_the_sample_is_the_same_prompts_for_all_methods_with_sides_in_balance(drawn):
    key = read_rows(drawn / KEY)
    assert len(key) == 3 * 6
    prompts = {method: {row["prompt_id"] for row in key if row["method"] == method} for method in METHODS}
    assert len(set(map(frozenset, prompts.values()))) == 1
    assert Counter((row["method"], row["side"]) for row in key) == {(m, side): 3 for m in METHODS for side in "AB"}
    assert [row["method"] for row in key] != sorted(row["method"] for row in key)
    for row in key:
        assert (row["a"] if row["side"] == "A" else row["b"]) in (best_response(row["prompt"]), "<script>&'\"")


def test_what_raters_see_says_nothing_about_methods_and_sides(drawn):
    key = read_rows(drawn / KEY)
    for name in (PAGE, TABLE):
        text = (drawn / name).read_text()
        assert not any(method in text or row["prompt_id"] in text for method in METHODS for row in key)
    rows = list(csv.DictReader(io.StringIO((drawn / TABLE).read_text())))
    assert [row["item"] for row in rows] == [row["item"] for row in key]
    assert [(row["A"], row["B"]) for row in rows] == [(row["a"], row["b"]) for row in key]


def test_the_page_needs_no_network_and_keeps_texts_from_being_markup(drawn):
    page = (drawn / PAGE).read_text()
    assert re.findall(r"(?:src|href)\s*=", page.split("<script>")[0]) == []
    assert "http" not in page.replace("http-equiv", "")
    found = re.search(r'<script type="application/json" id="sample">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    items = json.loads(found[1])["items"]
    assert set(items[0]) == {"item", "prompt", "a", "b"}
    assert "<script>&'\"" in {item["a"] for item in items}
    assert "<script>&" not in page


def ratings_file(path: Path, sample: RatingSample, rater: str, ratings: dict[str, str]) -> LocalFile:
    lines = [f"{sample.sample_id},{item},{rater},{rating}" for item, rating in ratings.items()]
    path.write_text("sample,item,rater,rating\n" + "\n".join(lines) + "\n")
    return LocalFile(path=str(path))


def agreeing(row: dict) -> str:
    """Rate as the judge does."""
    other = {"A": "B", "B": "A"}[row["side"]]
    return "tie" if row["preference"] == 1.5 else row["side"] if row["preference"] == 2 else other


def test_ratings_come_back_with_the_agreement_of_people_and_judge(sample, drawn, store, tmp_path):
    key = read_rows(drawn / KEY)
    ann = {row["item"]: agreeing(row) for row in key}
    bob = {row["item"]: "tie" for row in key[:9]}
    files = tuple(ratings_file(tmp_path / name, sample, name, one) for name, one in (("ann", ann), ("bob", bob)))
    stage = Ratings(sample=sample, files=files)
    toy.run(store, stage)
    rows = read_rows(store.directory(stage) / RATINGS)
    by_item = {row["item"]: row["preference"] for row in rows if row["rater"] == "ann"}
    assert by_item == {row["item"]: row["preference"] for row in key}
    pairs = {(row["first"], row["second"]): row for row in read_rows(store.directory(stage) / AGREEMENT)}
    assert (pairs["judge", "rater ann"]["kappa"], pairs["judge", "rater ann"]["items"]) == (1.0, 18)
    ties = sum(row["preference"] == 1.5 for row in key[:9])
    assert pairs["rater ann", "rater bob"]["agreed"] == pytest.approx(ties / 9)
    assert pairs["rater ann", "rater bob"]["kappa"] == pytest.approx(0)
    ordered = {(row["first"], row["second"]): row for row in read_rows(store.directory(stage) / ORDER)}
    assert ordered["judge", "rater ann"]["spearman"] == pytest.approx(1)
    rates = {(row["judge"], row["method"]): row["wr"] for row in read_rows(store.directory(stage) / WIN_RATES)}
    wins = [row["preference"] - 1 for row in key if row["method"] == "ConG"]
    assert rates["rater ann", "ConG"] == pytest.approx(100 * sum(wins) / 6)
    results = store.record(stage)["results"]
    assert (results["raters"], results["ratings"], results["items"]) == (2, 27, 18)


def test_agreement_is_what_a_hand_computation_gives():
    """Cohen's kappa of a 3 x 3 table by its definition.

        model    wins tie loses        of 20 items: agreed 6 + 2 + 5 = 13, so p_o = 0.65
    wins   6    1    1   = 8           by chance (8 x 8 + 5 x 4 + 7 x 8) / 400 = 140 / 400, so p_e = 0.35
    tie    1    2    2   = 5           kappa = (0.65 - 0.35) / (1 - 0.35) = 6 / 13
    loses  1    1    5   = 7
           8    4    8
    """
    table = {(2.0, 2.0): 6, (2.0, 1.5): 1, (2.0, 1.0): 1, (1.5, 2.0): 1, (1.5, 1.5): 2, (1.5, 1.0): 2,
             (1.0, 2.0): 1, (1.0, 1.5): 1, (1.0, 1.0): 5}  # fmt: skip
    pairs = [pair for pair, count in table.items() for _ in range(count)]
    one = {("m", str(n)): pair[0] for n, pair in enumerate(pairs)}
    # A chance of a win counts as the side that it falls on.
    other = {("m", str(n)): {2.0: 1.8, 1.5: 1.5, 1.0: 1.2}[pair[1]] for n, pair in enumerate(pairs)}
    found = agreements({"ann": one, "bob": {**other, ("m", "unseen"): 2.0}})
    assert [(a.first, a.second, a.items, a.agreed) for a in found] == [("ann", "bob", 20, 0.65)]
    assert found[0].kappa == pytest.approx(6 / 13)
    same = agreements({"ann": {("m", "1"): 2.0}, "bob": {("m", "1"): 2.0}, "eve": {("m", "2"): 1.0}})
    assert [(a.agreed, a.kappa) for a in same] == [(1.0, None)]


def test_the_order_of_methods_is_compared_by_rank():
    """Orders w x y z and x w z y: rank differences 1, 1, 1, 1; rho = 1 - 6 x 4 / 60 = 0.6, tau = (4 - 2) / 6."""
    one = {(name, "p"): value for name, value in zip("wxyz", (2.0, 1.8, 1.5, 1.0), strict=True)}
    other = {(name, "p"): value for name, value in zip("wxyz", (1.9, 2.0, 1.1, 1.3), strict=True)}
    (found,) = orders({"ann": one, "gpt": other})
    assert (found.methods, found.spearman, found.kendall) == (4, pytest.approx(0.6), pytest.approx(1 / 3))
    assert orders({"ann": {("w", "p"): 1.0}, "gpt": {("w", "p"): 2.0}}) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("item,rating\n", "has no column 'sample'"),
        ("sample,item,rater,rating\nother,1,ann,A\n", "row 2 is of sample 'other'"),
        ("sample,item,rater,rating\nSAMPLE,1,ann,C\n", "row 2 needs a rater and a rating of A, tie, B"),
        ("sample,item,rater,rating\nSAMPLE,1,,A\n", "row 2 needs a rater"),
        ("sample,item,rater,rating\nSAMPLE,1,ann,\n", "hold no rating"),
        ("sample,item,rater,rating\nSAMPLE,1,ann,A\nSAMPLE,1,ann,B\n", "ann rated item 1 twice"),
    ],
)
def test_a_wrong_file_of_ratings_is_one_clear_line(sample, tmp_path, content, message):
    (tmp_path / "r.csv").write_text(content.replace("SAMPLE", sample.sample_id))
    with pytest.raises(UserError, match=message):
        Ratings(sample=sample, files=(LocalFile(path=str(tmp_path / "r.csv")),)).check()


def test_an_item_of_no_sample_fails(sample, drawn, store, tmp_path):
    stage = Ratings(sample=sample, files=(ratings_file(tmp_path / "r.csv", sample, "ann", {"0": "A"}),))
    with pytest.raises(StageFailed, match="the sample has no item '0'"):
        toy.run(store, stage)


def test_a_rater_fills_the_page_in_a_browser(sample, drawn, store, tmp_path, browser):
    key = read_rows(drawn / KEY)
    context = browser.new_context(viewport={"width": 375, "height": 700}, color_scheme="dark", offline=True)
    page, asked, errors = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((drawn / PAGE).as_uri())
    assert page.inner_text("#a-text") == key[0]["a"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark

    page.keyboard.press("d")
    assert page.inner_text("#warning") == "Please enter your name first."
    page.fill("#rater", 'Ann "1", of 3')
    page.locator("#rater").blur()
    keys = {"A": "1", "tie": "2", "B": "3"}
    for row in key[:10]:
        page.keyboard.press(keys[agreeing(row)])
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#status") == "Pair 10 of 18, 10 rated"
    page.reload()
    assert page.inner_text("#status") == "Pair 10 of 18, 10 rated"
    assert page.input_value("#rater") == 'Ann "1", of 3'
    page.keyboard.press("u")
    for row in key[10:-1]:
        page.click(f"button[data-rating={agreeing(row)}]")
    with page.expect_download() as download:
        page.keyboard.press("d")
    download.value.save_as(tmp_path / "ann.csv")
    assert errors == []
    assert {url.split(":")[0] for url in asked} <= {"file", "blob"}

    stage = Ratings(sample=sample, files=(LocalFile(path=str(tmp_path / "ann.csv")),))
    toy.run(store, stage)
    rows = read_rows(store.directory(stage) / RATINGS)
    assert {row["rater"] for row in rows} == {'Ann "1", of 3'}
    assert {row["item"]: row["preference"] for row in rows} == {row["item"]: row["preference"] for row in key[:-1]}
    assert store.record(stage)["results"]["kappa"] == 1.0
