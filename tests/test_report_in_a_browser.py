"""A report in a real browser: the response browser's controls, hostile texts, phones, light and dark."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pages
import pytest

CONTRAST = """() => {
  const channels = (text) => text.match(/[0-9.]+/g).map(Number);
  const linear = (value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = (text) => {
    const [r, g, b] = channels(text).map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!(channels(colour).length === 4 && channels(colour)[3] === 0)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const [text, element] = [walker.currentNode.textContent.trim(), walker.currentNode.parentElement];
    if (!text || !element.checkVisibility() || element.closest("button:disabled")) continue;
    const [one, other] = [luminance(getComputedStyle(element).color), luminance(behind(element))];
    found.push([(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), text.slice(0, 40)]);
  }
  return found;
}"""
"""Of every visible text, its contrast with what is behind it, as WCAG defines it."""

Open = Callable[..., Any]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return pages.write_page(tmp_path)


@pytest.fixture
def show(browser: Any, report: Path) -> Iterator[Open]:
    """Open the report; at the end, no error and no request to anybody may have come."""
    asked, errors = [], []

    def opened(*, width: int = 1280, scheme: str = "light", script: bool = True) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=script
        )
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.goto(report.as_uri())
        return page

    yield opened
    assert errors == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]


def prompts(page: Any) -> list[str]:
    return page.locator(".prompt > p:first-child").all_inner_texts()


def role(page: Any, name: str) -> Any:
    return page.locator(f"[data-role={name}]")


def of_seed_0(*numbers: int) -> list[str]:
    return [pages.prompt(0, number) for number in numbers]


def test_prompts_are_filtered_by_their_text(show):
    page = show()
    assert role(page, "status").inner_text() == "Prompts 1 to 10 of 25"
    role(page, "text").fill("FRUITS")
    assert prompts(page) == of_seed_0(0, 5, 10, 15, 20)
    role(page, "text").fill("nothing has this")
    assert prompts(page) == []
    assert role(page, "status").inner_text() == "No prompt fits."


def test_prompts_are_turned_over_page_by_page(show):
    page = show()
    assert prompts(page) == of_seed_0(*range(10))
    assert role(page, "back").is_disabled()
    role(page, "next").click()
    role(page, "next").click()
    assert prompts(page) == of_seed_0(*range(20, 25))
    assert role(page, "status").inner_text() == "Prompts 21 to 25 of 25"
    assert role(page, "next").is_disabled()
    role(page, "back").click()
    assert prompts(page) == of_seed_0(*range(10, 20))
    role(page, "text").fill("question")
    assert prompts(page) == of_seed_0(*range(10))


def test_methods_are_shown_and_hidden(show):
    page = show()
    assert page.locator(".prompt dt").all_inner_texts()[:3] == [
        "Base\nreward 1.00",
        "ConG-S\nreward 0.00",
        "ConG\nreward 1.00",
    ]
    page.get_by_label("ConG-S", exact=True).uncheck()
    assert page.locator(".prompt dd").all_inner_texts()[:3] == ["Base says 0", "ConG says 0", "Base says 1"]
    page.get_by_label("ConG-S", exact=True).check()
    assert page.locator(".prompt dd").all_inner_texts()[1] == "ConG-S says 0"


def test_seeds_are_chosen(show):
    page = show()
    page.get_by_label("seed").select_option("1")
    assert prompts(page) == [pages.prompt(1, number) for number in range(10)]
    assert page.locator(".prompt dt").all_inner_texts()[0] == "Base\nreward 1.00"


def gaps(page: Any) -> list[float]:
    return [float(text.replace("\u2212", "-")) for text in page.locator(".gap > span").all_inner_texts()]


def test_the_largest_win_comes_first_and_the_largest_loss(show):
    page = show()
    role(page, "order").select_option("win")
    assert (role(page, "ours").input_value(), role(page, "theirs").input_value()) == ("ConG", "Base")
    assert prompts(page) == of_seed_0(7, 24, 23, 22, 20, 19, 18, 17, 16, 15)
    assert gaps(page)[:2] == [2.5, 0.24]
    assert page.locator(".gap").first.inner_text() == "ConG against Base: +2.50"
    role(page, "order").select_option("loss")
    assert prompts(page)[:3] == of_seed_0(21, 0, 1)
    assert gaps(page)[:2] == [-3.0, 0.0]
    role(page, "next").click()
    role(page, "next").click()
    assert prompts(page)[-1] == pages.prompt(0, 7)
    # Of ConG-S against ConG, the loss of one is the win of the other.
    role(page, "ours").select_option("ConG-S")
    role(page, "theirs").select_option("ConG")
    assert prompts(page)[0] == pages.prompt(0, 7)
    assert gaps(page)[0] == pytest.approx(0.07 - 3.5)


def test_hostile_texts_are_shown_as_text_and_do_nothing(show):
    page = show()
    role(page, "text").fill("question 03")
    assert page.locator(".prompt dd").all_text_contents() == [pages.HOSTILE] * 3
    assert page.title() == "A page"
    assert page.locator("img").count() == 1
    role(page, "text").fill(pages.HOSTILE)
    assert prompts(page) == []


@pytest.mark.parametrize("script", [True, False])
def test_a_phone_scrolls_tables_in_their_box_and_never_the_page_sideways(show, script):
    page = show(width=360, script=script)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    box = page.locator(".wide").first
    assert box.evaluate("box => box.scrollWidth > 2 * box.clientWidth")
    name = page.locator(".wide td").first
    before = name.bounding_box()["x"]
    box.evaluate("box => box.scrollTo(500, 0)")
    assert box.evaluate("box => box.scrollLeft") == 500
    assert name.bounding_box()["x"] == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_in_light_and_in_dark(show, scheme):
    page = show(scheme=scheme)
    role(page, "order").select_option("loss")
    page.locator("summary").click()
    found = page.evaluate(CONTRAST)
    assert len(found) > 100
    assert [text for ratio, text in found if ratio < 4.5] == []
    dark = sum(map(int, page.evaluate("getComputedStyle(document.body).backgroundColor")[4:-1].split(","))) < 150
    assert dark == (scheme == "dark")


def test_without_a_script_there_are_examples_and_no_controls(show):
    page = show(script=False)
    assert prompts(page) == of_seed_0(0, 1, 2)
    assert page.locator(".prompt dd").all_inner_texts()[0] == "Base says 0  (1.00)"
    assert not page.locator(".controls").is_visible()
    assert "with JavaScript" in page.locator(".browser").inner_text()
