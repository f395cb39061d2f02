"""Renders blocks: `{name}.html` (self-contained), `{name}.md`, and every figure as PNG and SVG."""

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cong.graph.journal import replace_text
from cong.report.blocks import Block, Figure
from cong.report.browser import as_json, examples
from cong.report.markdown import as_markdown, stands_at

WIDTH, HEIGHT = 4.6, 3.2


@dataclass(frozen=True, kw_only=True)
class Report:
    """Where a report was written."""

    page: Path
    files: tuple[Path, ...]


def write_report(
    directory: Path,
    *,
    name: str,
    title: str,
    description: str,
    blocks: Iterable[Block],
    attachments: Mapping[str, str] | None = None,
) -> Report:
    """Write page, Markdown and pictures into `directory`, and beside them the texts of `attachments` by file name."""
    import jinja2

    directory.mkdir(parents=True, exist_ok=True)
    shown = list(blocks)
    pictures = {block.name: _draw(block) for block in shown if isinstance(block, Figure)}
    loader = jinja2.PackageLoader("cong.report", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"stands_at": stands_at, "examples": examples, "as_json": as_json}
    items = [{"kind": type(block).__name__, "block": block} for block in shown]
    encoded = {key: base64.b64encode(png).decode() for key, (png, _) in pictures.items()}
    page = environment.get_template("page.html").render(title=title, description=description, items=items, png=encoded)
    texts = {
        f"{name}.html": page,
        f"{name}.md": as_markdown(title=title, description=description, blocks=shown),
        **(attachments or {}),
    }
    for file, text in texts.items():
        replace_text(directory / file, text)
    files = [directory / file for file in texts]
    return Report(page=files[0], files=(*files, *_write_pictures(directory, pictures)))


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
