"""Renders blocks: `{name}.html` (self-contained), `{name}.md`, and every figure as PNG and SVG."""

import base64
import html
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cong.graph.journal import replace_text
from cong.report.blocks import Block, Figure, Table, Text

WIDTH, HEIGHT = 4.6, 3.2


@dataclass(frozen=True, kw_only=True)
class Report:
    """Where a report was written."""

    page: Path
    files: tuple[Path, ...]


def write_report(directory: Path, *, name: str, title: str, description: str, blocks: Iterable[Block]) -> Report:
    """Write page, Markdown and pictures into `directory`."""
    import jinja2

    directory.mkdir(parents=True, exist_ok=True)
    shown = list(blocks)
    pictures = {block.name: _draw(block) for block in shown if isinstance(block, Figure)}
    environment = jinja2.Environment(loader=jinja2.PackageLoader("cong.report", "."), autoescape=True)
    items = [{"kind": type(block).__name__, "block": block} for block in shown]
    encoded = {key: base64.b64encode(png).decode() for key, (png, _) in pictures.items()}
    page = environment.get_template("page.html").render(title=title, description=description, items=items, png=encoded)
    paths = [directory / f"{name}.html", directory / f"{name}.md"]
    replace_text(paths[0], page)
    replace_text(paths[1], _markdown(title, description, shown))
    return Report(page=paths[0], files=(*paths, *_write_pictures(directory, pictures)))


def _draw(figure: Figure) -> tuple[bytes, bytes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(WIDTH * figure.panels, HEIGHT), layout="constrained", dpi=160)
    FigureCanvasAgg(canvas)
    axes = canvas.subplots(1, figure.panels)
    for one in axes if figure.panels > 1 else [axes]:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25, linewidth=0.6)
    figure.draw(list(axes) if figure.panels > 1 else axes)
    return tuple(_encoded(canvas, kind) for kind in ("png", "svg"))  # pyright: ignore[reportReturnType]


def _encoded(canvas: Any, kind: str) -> bytes:
    buffer = io.BytesIO()
    canvas.savefig(buffer, format=kind)
    return buffer.getvalue()


def _write_pictures(directory: Path, pictures: dict[str, tuple[bytes, bytes]]) -> list[Path]:
    written = []
    for name, contents in pictures.items():
        for kind, content in zip(("png", "svg"), contents, strict=True):
            path = directory / f"{name}.{kind}"
            path.write_bytes(content)
            written.append(path)
    return written


def _markdown(title: str, description: str, blocks: list[Block]) -> str:
    return "\n\n".join([f"# {title}", description, *(_block_markdown(block) for block in blocks)]).strip() + "\n"


def _block_markdown(block: Block) -> str:
    heading = f"## {block.title}\n\n" if block.title else ""
    if isinstance(block, Text):
        return heading + ("**Warning.** " if block.warning else "") + block.text
    caption = f"\n\n{block.caption}" if block.caption else ""
    if isinstance(block, Table):
        return heading + _table_markdown(block) + caption
    if isinstance(block, Figure):
        return f"{heading}![{block.title}]({block.name}.png){caption}"
    return heading + "\n\n".join(_responses_markdown(prompt, texts) for prompt, texts in block.prompts) + caption


def _table_markdown(table: Table) -> str:
    best = list(table.best) or [None] * len(table.columns)
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    for index, row in enumerate(table.rows):
        cells = [f"**{text}**" if bold == index else text for text, bold in zip(row, best, strict=True)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _responses_markdown(prompt: str, texts: dict[str, str]) -> str:
    lines = [f"**{html.escape(prompt)}**", ""]
    return "\n".join([*lines, *(f"- {model}: {html.escape(text)}" for model, text in texts.items())])
