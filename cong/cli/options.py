"""Options shared by several commands: those of a run, and how they become a job."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cong.graph.resources import Resources
    from cong.graph.store import StageStore
    from cong.run.job import Job

ExperimentFile = Annotated[Path, typer.Argument(help="Experiment file, such as experiments/quickstart.py.")]
ScaleName = Annotated[
    str | None,
    typer.Option(
        "--scale",
        help="tiny (synthetic world, CPU), small (one GPU), paper, or a .py file; default: the experiment's, or tiny.",
    ),
]
Profile = Annotated[str, typer.Option("--profile", help="Name in cong/profiles, or a .toml file.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="AXIS=VALUE; repeatable.", metavar="AXIS=VALUE")]
Grid = Annotated[
    list[str] | None,
    typer.Option(
        "--grid", help="AXIS=VALUES, such as alpha=0:1:0.1 or beta=0.1,0.5; repeatable.", metavar="AXIS=VALUES"
    ),
]
StorePlace = Annotated[
    str, typer.Option("--store", help="Directory of finished stages, or a URL such as s3://BUCKET/PREFIX.")
]
Force = Annotated[list[str] | None, typer.Option("--force", help="Stage to recompute: its name, or part of its id.")]
Address = Annotated[str | None, typer.Option("--address", help="Ray cluster; default is that of the profile.")]
Dashboard = Annotated[
    str,
    typer.Option(
        "--address", envvar="RAY_API_SERVER_ADDRESS", help="Ray's dashboard: http://HEAD:8265.", metavar="URL"
    ),
]


def opened(store: str) -> "StageStore":
    """Return the store that `--store` names; raise `UserError` when nobody answers at its URL."""
    from cong.graph.store import store_at

    found = store_at(store if "://" in store else Path(store).resolve())
    found.check()
    return found


def resources_of(profile: str, store: "StageStore | None" = None, **overrides: Any) -> "Resources":
    """Return a profile with what was chosen in its place, None left out, for stages that lie in a store."""
    from cong.graph.resources import load_profile

    found = load_profile(profile, **{name: value for name, value in overrides.items() if value is not None})
    return found if store is None or store.shared else found.changed(one_node=True)


def prepare(
    experiment: Path,
    scale: str | None,
    profile: str,
    settings: list[str] | None,
    grid: list[str] | None,
    store: str,
    force: list[str] | None,
    *,
    own_grid: bool = True,
    **overrides: Any,
) -> "Job":
    """Load and plan an experiment; raise `UserError` for every mistake that can be seen at once."""
    from cong.run.job import prepare as planned

    found = opened(store)
    return planned(
        experiment,
        scale=scale,
        assignments=settings or [],
        grid=tuple(grid or ()),
        resources=resources_of(profile, found, **overrides),
        store=found,
        force=tuple(force or ()),
        own_grid=own_grid,
    )
