"""Renders blocks as Markdown, for readers without a browser: a repository's page, a diff, a terminal."""

import html
import re
from collections.abc import Sequence

from cong.report.blocks import Block, Browser, Figure, Links, Place, Responses, Table, Text
from cong.report.browser import examples


def as_markdown(*, title: str, description: str, blocks: Sequence[Block]) -> str:
    """Return the whole page."""
    return "\n\n".join([f"# {title}", description, *map(_block, blocks)]).strip() + "\n"


def _block(block: Block) -> str:
    heading = f"## {block.title}\n\n" if block.title else ""
    if isinstance(block, Text):
        return heading + ("**Warning.** " if block.warning else "") + block.text
    caption = f"\n\n{block.caption}" if block.caption else ""
    return f"{heading}{_content(block)}{caption}"


def _content(block: Links | Table | Figure | Responses | Browser) -> str:
    if isinstance(block, Links):
        return "\n".join(f"- [{_text(text)}]({file})" for file, text in block.links)
    if isinstance(block, Table):
        text = _table(block)
        return f"<details><summary>Show</summary>\n\n{text}\n\n</details>" if block.folded else text
    if isinstance(block, Figure):
        return f"![{block.title}]({block.name}.png)"
    shown = examples(block) if isinstance(block, Browser) else block
    return "\n\n".join(_responses(prompt, texts) for prompt, texts in shown.prompts)


def _table(table: Table) -> str:
    lines = ["| " + " | ".join(map(_text, table.columns)) + " |", "|" + "---|" * len(table.columns)]
    for row, cells in enumerate(table.rows):
        lines.append("| " + " | ".join(_cell(table, row, column) for column in range(len(cells))) + " |")
    return "\n".join(lines)


def _cell(table: Table, row: int, column: int) -> str:
    text = _text(table.rows[row][column])
    if text and stands_at(table.best, row, column):
        text = f"**{text}**"
    elif text and stands_at(table.second, row, column):
        text = f"<u>{text}</u>"
    paper = table.paper[row][column] if table.paper else ""
    return f"{text} (paper: {_text(paper)})" if paper else text


def stands_at(places: Sequence[Place], row: int, column: int) -> bool:
    """Tell whether a row has the place that `places` gives away in a column."""
    place = places[column] if places else None
    return row in place if isinstance(place, tuple) else row == place


def _text(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def _responses(prompt: str, texts: dict[str, str]) -> str:
    answers = (f"{_text(model)}:\n\n{_verbatim(text)}" for model, text in texts.items())
    return "\n\n".join([f"**Prompt**\n\n{_verbatim(prompt)}", *answers])


def _verbatim(text: str) -> str:
    """Return a text as a code block: what a model wrote is neither markup nor a picture to fetch."""
    ticks = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(ticks + 1, 3)
    return f"{fence}text\n{text}\n{fence}"
