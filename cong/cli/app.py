"""The command `cong`: init, mirror, plan, run, tune, submit, logs, cancel, status, report, align, export, decode,
doctor.

A user's mistake is one line and exit code 2.
"""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cong.cli import jobs as jobcommands
from cong.cli import models as modelcommands
from cong.cli.align import align
from cong.cli.decode import decode
from cong.cli.options import (
    Address,
    ExperimentFile,
    Force,
    Grid,
    Profile,
    ScaleName,
    Settings,
    StorePlace,
    opened,
    prepare,
)
from cong.errors import UserError

if TYPE_CHECKING:
    from cong.run.job import Job

# What typer raises for an unknown flag or a missing argument has no public name of its own.
_USAGE_ERROR: Any = typer.BadParameter.__base__

DEBUG = "--debug"
"""Flag that may stand anywhere in a command."""

app = typer.Typer(
    name="cong",
    help=f"Contrastive Weak-to-Strong Generalization as experiments. With {DEBUG} an error shows its traceback.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Where to write; default is the current directory.")] = Path(),
) -> None:
    """Write an experiment and a profile to begin with; nothing is overwritten."""
    from cong.cli.init import next_commands, write_starter

    for path in write_starter(directory):
        typer.echo(f"wrote {path}")
    typer.echo("Next:\n  " + "\n  ".join(next_commands(directory)))


@app.command()
def plan(
    experiment: ExperimentFile,
    scale: ScaleName = None,
    profile: Profile = "laptop",
    settings: Settings = None,
    grid: Grid = None,
    store: StorePlace = "runs",
    force: Force = None,
) -> None:
    """Print what a run would compute, as a tree, without starting anything."""
    from cong.cli.plan import show

    show(prepare(experiment, scale, profile, settings, grid, store, force))


@app.command()
def run(
    experiment: ExperimentFile,
    scale: ScaleName = None,
    profile: Profile = "laptop",
    settings: Settings = None,
    grid: Grid = None,
    store: StorePlace = "runs",
    force: Force = None,
    address: Address = None,
) -> None:
    """Compute the stages that are not in the store, and write the report. Run it again to resume."""
    from cong.run import launch

    job = prepare(experiment, scale, profile, settings, grid, store, force, address=address)
    _report_of(job, launch.run)


@app.command()
def tune(
    experiment: ExperimentFile,
    over: Annotated[
        list[str],
        typer.Option(
            "--over", help="AXIS=LOW:HIGH, AXIS=LOW:HIGH:log or AXIS=VALUE,VALUE; repeatable.", metavar="AXIS=RANGE"
        ),
    ],
    measure: Annotated[str, typer.Option(help="Number of the cells' results that decides.")] = "reward",
    lowest: Annotated[bool, typer.Option("--lowest", help="The lowest value is the best.")] = False,
    trials: Annotated[int, typer.Option(help="Points to look at, those of earlier runs included.")] = 16,
    searcher: Annotated[str, typer.Option(help="optuna or random.")] = "optuna",
    seed: Annotated[int, typer.Option(help="Seed of the searcher.")] = 0,
    scale: ScaleName = None,
    profile: Profile = "laptop",
    settings: Settings = None,
    store: StorePlace = "runs",
    address: Address = None,
) -> None:
    """Search axes for the best value of a measure, with Ray Tune. Run it again to go on."""
    from cong.experiment import load
    from cong.experiment.axes import Search, parse_axis
    from cong.run import tuning

    axes = tuple(parse_axis(load(experiment), text) for text in over)
    search = Search(axes=axes, measure=measure, lowest=lowest, trials=trials, searcher=cast(Any, searcher), seed=seed)
    ends = list(search.corners)
    job = prepare(experiment, scale, profile, settings, ends, store, None, own_grid=False, address=address)
    _report_of(job, lambda job: tuning.tune(job, search))


@app.command()
def report(
    experiment: ExperimentFile,
    scale: ScaleName = None,
    settings: Settings = None,
    grid: Grid = None,
    store: StorePlace = "runs",
) -> None:
    """Write the report again from what is in the store."""
    from cong.run import pages

    written = pages.report(prepare(experiment, scale, "laptop", settings, grid, store, None))
    typer.echo(f"report:  {written.page}")


@app.command()
def status(
    experiment: Annotated[str | None, typer.Argument(help="Name of an experiment, for its cells and stages.")] = None,
    store: StorePlace = "runs",
    address: Annotated[str | None, typer.Option(help="Ray's dashboard: the jobs of that cluster too.")] = None,
) -> None:
    """Show the experiments of a store: what is finished, what runs now and how far it is, what failed and why."""
    from cong.cli import status as statusview

    found = opened(store)
    found.mirror()
    if experiment:
        statusview.show_experiment(found.root, experiment)
    elif found.root.is_dir() or not address:
        statusview.show(found.root)
    if address:
        jobcommands.show_jobs(address)


_FURTHER = (
    jobcommands.submit, jobcommands.logs, jobcommands.cancel, modelcommands.mirror, modelcommands.export, align, decode,
)  # fmt: skip
for command in _FURTHER:
    app.command()(command)


@app.command()
def doctor(
    profile: Profile = "laptop",
    store: StorePlace = "runs",
) -> None:
    """Check Python, packages, devices, Ray, disk, store, tracking and the model hub, and say what to do."""
    from cong.cli.doctor import examine
    from cong.graph.resources import load_profile

    if not examine(load_profile(profile), opened(store)):
        raise typer.Exit(1)


def _report_of(job: "Job", compute: Callable[["Job"], Path]) -> None:
    """Compute, and say where the report is; exit with 1 when stages failed."""
    from cong.graph.runner import StageFailed
    from cong.tracking import ways_to_see

    try:
        page = compute(job)
    except StageFailed as error:
        typer.echo(f"error: {len(error.failures)} stage(s) failed: {error}", err=True)
        typer.echo("What was finished is kept; run the same command again to go on.", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"report:  {page}")
    # The page and what is tracked of it have one name, which is not the job's own when it is a search.
    typer.echo("mlflow:  " + "\n         ".join(ways_to_see(job.store, name=page.stem)))


def main() -> None:
    """Run the command line; the entry point of the package."""
    # Nobody is asked for anything by the libraries below, and nothing is sent to anyone.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    arguments = [text for text in sys.argv[1:] if text != DEBUG]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        sys.exit(app(args=arguments, standalone_mode=False))
    except _USAGE_ERROR as error:
        typer.echo(f"error: {error.format_message()}", err=True)
        sys.exit(2)
    except (UserError, OSError) as error:
        if debug:
            traceback.print_exc()
        # What the user can mend was put into words; an error of the system may be of our own making.
        hint = "" if debug or isinstance(error, UserError) else f" ({type(error).__name__}; {DEBUG} shows where)"
        typer.echo(f"error: {error}{hint}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted: what was finished is kept; run the same command again to go on", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
