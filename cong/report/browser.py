"""The response browser of a report, made of the cells whose responses were judged one by one.

    yield browse(results)

A cell becomes a source of answers: its `seed`, `family` and the like are settings among which the reader chooses, what
else tells cells apart (method, alpha, ...) is the model's name. Prompts are joined by `prompt_id` and text.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

from cong.data import Row
from cong.evaluation import Evaluation
from cong.experiment import Result, Results, Value, value_text
from cong.report.blocks import Browser, Prompt, Responses, Source

METHOD = "method"
SETTINGS = ("setting", "family", "domain", "benchmark", "decoding", "seed")
"""Axes of which the reader looks at one value at a time."""
BYTES = 1_500_000
"""What is embedded at most, as JSON."""


def browse(results: Results, *, size: int = BYTES) -> Browser | None:
    """Return the browser of all results that hold responses with rewards or preferences; None where there are none.

    It holds all prompts, or where they would take more than `size` bytes so many, evenly spaced, as fit.
    """
    found = [(result, rows) for result in results if (rows := _rows(result))]
    if not found:
        return None
    sources = _sources([result for result, _ in found])
    every = _joined([rows for _, rows in found])
    browser = Browser(title="Responses", sources=sources, prompts=every)
    while len(browser.prompts) > 1 and (taken := len(as_json(browser))) > size:
        count = max(1, min(len(browser.prompts) - 1, int(len(browser.prompts) * size / taken)))
        browser = replace(browser, prompts=_spaced(every, count))
    measures = {source.measure for source in sources}
    return replace(browser, caption=_caption(len(browser.prompts), len(every), measures))


def examples(browser: Browser) -> Responses:
    """Return the first prompts that the first source's settings have, with all answers under these settings."""
    first = browser.sources[0].settings
    names = {
        number: source.model
        for number, source in enumerate(browser.sources)
        if all(first.get(key) in (value, None) for key, value in source.settings.items())
    }
    texts = [
        (
            prompt.text,
            {name: _answer_text(*prompt.answers[number]) for number, name in names.items() if number in prompt.answers},
        )
        for prompt in browser.prompts
    ]
    return Responses(title=browser.title, prompts=[pair for pair in texts if pair[1]][: browser.examples])


def as_json(browser: Browser) -> str:
    """Return what the page's script reads, with no `<` in it: no text can end the element that holds it.

    Equal texts are held once; a reward that is no number becomes null.
    """
    texts: dict[str, int] = {}
    prompts = [
        {
            "text": texts.setdefault(prompt.text, len(texts)),
            "answers": {
                number: [texts.setdefault(text, len(texts)), _number(reward)]
                for number, (text, reward) in prompt.answers.items()
            },
        }
        for prompt in browser.prompts
    ]
    sources = [{"model": one.model, "settings": dict(one.settings), "measure": one.measure} for one in browser.sources]
    data = json.dumps({"sources": sources, "prompts": prompts, "texts": list(texts)}, separators=(",", ":"))
    return data.replace("<", "\\u003c")


def _rows(result: Result) -> list[Row]:
    """Return prompt_id, prompt, response and reward of every judged response of a cell."""
    stage = result.cell.stage
    return stage.judged(result.directory) if isinstance(stage, Evaluation) else []


def _measure(result: Result) -> str:
    assert isinstance(result.cell.stage, Evaluation)
    return result.cell.stage.MEASURE


def _joined(columns: Sequence[list[Row]]) -> list[Prompt]:
    answers: dict[tuple[str, str], dict[int, tuple[str, float | None]]] = {}
    for number, rows in enumerate(columns):
        for row in rows:
            answers.setdefault((row["prompt_id"], row["prompt"]), {})[number] = (row["response"], row["reward"])
    return [Prompt(text=text, answers=found) for (_, text), found in answers.items()]


def _spaced(prompts: list[Prompt], count: int) -> list[Prompt]:
    return [prompts[index * len(prompts) // count] for index in range(count)]


def _caption(shown: int, every: int, measures: set[str]) -> str:
    held = f"All {every} prompts are" if shown == every else f"{shown} of {every} prompts, evenly spaced, are"
    explained = {
        "reward": "The number is the reward; of several samples per prompt the first is shown, with their mean reward.",
        "preference": "The preference is the judge's, from 0 (the baseline's response) to 1 (this one).",
    }
    return " ".join([f"{held} on this page.", *(text for name, text in explained.items() if name in measures)])


def _sources(results: Results) -> list[Source]:
    varying = {key for one in results for key in one.axes if len({other.axes.get(key) for other in results}) > 1}
    keys = dict.fromkeys(key for result in results for key in result.axes)
    names = _names(results, [key for key in keys if key in varying - {METHOD, *SETTINGS}])
    return [
        Source(
            model=names[result.cell.name],
            settings={key: value_text(result.axes[key]) for key in SETTINGS if key in varying and key in result.axes},
            measure=_measure(result),
        )
        for result in results
    ]


def _names(results: Results, keys: Sequence[str]) -> dict[str, str]:
    """Name every cell by method, and by as many other axes as tell it apart from those with the same settings.

    A cell that is of no method is named by all its axes: one of them alone would not say what it is.
    """
    groups: dict[Value | None, Results] = {}
    for result in results:
        groups.setdefault(result.axes.get(METHOD), []).append(result)
    named = {}
    for method, group in groups.items():
        for one in group:
            chosen = keys if method is None else _distinguishing(group, keys)
            parts = [f"{key} {value_text(one.axes[key])}" for key in chosen if key in one.axes]
            named[one.cell.name] = ", ".join(([] if method is None else [str(method)]) + parts) or "responses"
    return named


def _distinguishing(results: Results, keys: Sequence[str]) -> list[str]:
    """Return the fewest leading keys with which, and their settings, all results can be distinguished."""
    found: list[str] = []
    for key in keys:
        if _apart(results, found):
            break
        if len({result.axes.get(key) for result in results}) > 1:
            found.append(key)
    return found


def _apart(results: Results, keys: Sequence[str]) -> bool:
    places = {tuple(result.axes.get(key) for key in (*SETTINGS, *keys)) for result in results}
    return len(places) == len(results)


def _answer_text(text: str, reward: float | None) -> str:
    number = _number(reward)
    return text if number is None else f"{text}  ({number:.2f})"


def _number(reward: float | None) -> float | None:
    return round(reward, 4) if reward is not None and math.isfinite(reward) else None
