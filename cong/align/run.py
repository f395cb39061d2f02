"""Plans and runs the method on a request, and writes out the model that comes of it. Run again, it resumes."""

from pathlib import Path

from cong.align import align as method
from cong.align.request import Request
from cong.experiment import Experiment, load
from cong.graph.resources import Resources
from cong.graph.stage import Stage
from cong.graph.store import StageStore
from cong.publish import TrainedModel, check_target, export
from cong.run import launch
from cong.run.checks import check
from cong.run.job import Job, job_of
from cong.scales import Scale


def planned(request: Request, *, scale: Scale, resources: Resources, store: StageStore) -> Job:
    """Return the job of a request; its name, and that of its report, is the scale's."""
    experiment = _experiment()
    settings = {"beta": request.beta, "seed": request.seed}
    cells = experiment.cells(scale, settings)
    return job_of(experiment, scale=scale, cells=cells, resources=resources, store=store)


def align(job: Job, output: Path) -> tuple[Path, Path]:
    """Compute what is missing, and write the model to `output`; return it and the page of the report.

    Raise `UserError`, before anything is computed, when something else lies at `output`.
    """
    final = _final_model(job)
    check_target(output, fingerprint=final.fingerprint)
    check(job)
    page = launch.run(job)
    job.store.fetch([final])
    trained = TrainedModel(root=job.store.root, directory=job.store.directory(final))
    return export(trained, output, report=page.parent), page


def _experiment() -> Experiment:
    return load(Path(method.__file__))


def _final_model(job: Job) -> Stage:
    cell = next(cell for cell in job.cells if cell.axes.get("method") == method.CONG)
    model = cell.stage.evaluated_model
    assert isinstance(model, Stage)
    return model
