"""The commands that speak to a cluster through Ray Jobs: submit, logs, cancel."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cong.cli.options import Dashboard, ExperimentFile, Force, Grid, Profile, ScaleName, Settings, StorePlace, prepare
from cong.errors import UserError

if TYPE_CHECKING:
    from cong.submit.dashboard import Cluster
    from cong.submit.jobs import Jobs

JobId = Annotated[str, typer.Argument(help="Id that `cong submit` printed.", metavar="JOB")]


def submit(
    experiment: ExperimentFile,
    address: Dashboard,
    scale: ScaleName = None,
    profile: Profile = "laptop",
    settings: Settings = None,
    grid: Grid = None,
    store: StorePlace = "runs",
    force: Force = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow the log.")] = False,
    working_dir: Annotated[
        Path | None, typer.Option(help="What is packed; default is the repository of the experiment file.")
    ] = None,
    env: Annotated[list[str] | None, typer.Option(help="Variable of the job; repeatable.", metavar="KEY=VALUE")] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(help="File that is packed although it is a link or may hold secrets; repeatable.", metavar="FILE"),
    ] = None,
) -> None:
    """Run an experiment on a Ray cluster: pack the project, check the demand, start the job and follow its log."""
    from cong.graph.resources import profile_path
    from cong.graph.runner import check_capacity
    from cong.run.checks import check_devices, check_resources
    from cong.run.naming import SOURCE
    from cong.submit.dashboard import differences, reach
    from cong.submit.jobs import Jobs, Submission, environment, kept_back
    from cong.submit.packing import left_out, pack

    variables = environment(env or []) | {SOURCE: str(experiment.resolve())}
    job = prepare(experiment, scale, profile, settings, grid, store, force)
    check_resources(job)
    check_devices(job)
    packed = pack(
        experiment=experiment,
        profile=profile_path(profile),
        root=working_dir,
        store=job.store.root,
        include=tuple(include or ()),
    )
    cluster = reach(address)
    shared = _shared_store(store, cluster)
    if note := check_capacity(job.plan, job.resources, cluster.capacity):
        typer.echo(note, err=True)
    for line in [*left_out(packed), *kept_back(), *differences(cluster)]:
        typer.echo(f"note: {line}", err=True)
    jobs = Jobs(cluster)
    options = _options(scale, settings, grid, force)
    job_id = jobs.submit(Submission(name=job.name, packed=packed, options=options, store=shared, environment=variables))
    typer.echo(f"job:     {job_id}")
    typer.echo(f"store:   {shared}")
    if detach:
        typer.echo(_advice(job_id, cluster.address))
        return
    _follow(jobs, job_id, cluster.address)


def logs(
    job: JobId,
    address: Dashboard,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the job ends; its exit code is returned.")
    ] = False,
) -> None:
    """Print what a job has printed."""
    from cong.submit.dashboard import reach
    from cong.submit.jobs import Jobs

    jobs = Jobs(reach(address))
    if not follow:
        typer.echo(jobs.log(job), nl=False)
        return
    jobs.job(job)
    _follow(jobs, job, address)


def cancel(job: JobId, address: Dashboard) -> None:
    """Stop a job. What is finished stays in the store."""
    from cong.submit.dashboard import reach
    from cong.submit.jobs import Jobs

    stopped = Jobs(reach(address)).cancel(job)
    typer.echo(f"{job} {'is cancelled' if stopped else 'had ended already'}")
    typer.echo("What was finished is kept; submit the same command again to go on.")


def show_jobs(address: str) -> None:
    """Print the jobs of a cluster."""
    from cong.cli import status as statusview
    from cong.submit.dashboard import reach
    from cong.submit.jobs import Jobs

    cluster = reach(address)
    statusview.show_jobs(Jobs(cluster).list(), cluster.address)


def _shared_store(store: str, cluster: "Cluster") -> str:
    if "://" in store:
        return store
    if Path(store).is_absolute() or cluster.here:
        return str(Path(store).resolve())
    raise UserError(f"--store {store} is relative, and the cluster is elsewhere: give the path that its nodes share")


def _options(
    scale: str | None, settings: list[str] | None, grid: list[str] | None, force: list[str] | None
) -> tuple[str, ...]:
    given = (("--scale", [scale] if scale else None), ("--set", settings), ("--grid", grid), ("--force", force))
    return tuple(text for flag, values in given for value in values or [] for text in (flag, value))


def _follow(jobs: "Jobs", job_id: str, address: str) -> None:
    try:
        code = jobs.follow(job_id)
    except KeyboardInterrupt:
        typer.echo(f"\nthe job continues\n{_advice(job_id, address)}", err=True)
        raise typer.Exit(130) from None
    raise typer.Exit(code)


def _advice(job_id: str, address: str) -> str:
    return (
        f"follow:  cong logs {job_id} --follow --address {address}\ncancel:  cong cancel {job_id} --address {address}"
    )
