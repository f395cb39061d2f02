"""What several commands are told: the options of a run, and how they become a job."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cong.launch import Job

ExperimentFile = Annotated[Path, typer.Argument(help="Experiment file, such as experiments/quickstart.py.")]
ScaleName = Annotated[str, typer.Option("--scale", help="tiny (synthetic world, CPU) or paper.")]
Profile = Annotated[str, typer.Option("--profile", help="Name in cluster/profiles, or a .toml file.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="AXIS=VALUE; repeatable.", metavar="AXIS=VALUE")]
Grid = Annotated[
    list[str] | None,
    typer.Option(
        "--grid", help="AXIS=VALUES, such as alpha=0:1:0.1 or beta=0.1,0.5; repeatable.", metavar="AXIS=VALUES"
    ),
]
StoreDir = Annotated[Path, typer.Option("--store", help="Directory of finished stages.")]
Force = Annotated[list[str] | None, typer.Option("--force", help="Stage to make anew: its name, or part of its id.")]
Address = Annotated[str | None, typer.Option("--address", help="Ray cluster; default is that of the profile.")]
Dashboard = Annotated[
    str,
    typer.Option(
        "--address", envvar="RAY_API_SERVER_ADDRESS", help="Ray's dashboard: http://HEAD:8265.", metavar="URL"
    ),
]


def prepare(
    experiment: Path,
    scale: str,
    profile: str,
    settings: list[str] | None,
    grid: list[str] | None,
    store: Path,
    force: list[str] | None,
    *,
    own_grid: bool = True,
    **overrides: Any,
) -> "Job":
    """Load and plan an experiment; raise `UserError` for every mistake that can be seen at once."""
    from cong import launch
    from cong.graph.resources import load_profile
    from cong.graph.store import Store

    chosen = {key: value for key, value in overrides.items() if value is not None}
    return launch.prepare(
        experiment,
        scale=scale,
        assignments=settings or [],
        grid=tuple(grid or ()),
        resources=load_profile(profile, **chosen),
        store=Store(store.resolve()),
        force=tuple(force or ()),
        own_grid=own_grid,
    )
