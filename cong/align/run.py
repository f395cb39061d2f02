"""Plans and runs the method on a request, and writes out the model that comes of it. Run again, it resumes."""

import math
from pathlib import Path

from cong.align import align as method
from cong.align.request import Request
from cong.data.prompts import PromptFile
from cong.errors import UserError
from cong.experiment import Experiment, load
from cong.graph.resources import Resources
from cong.graph.stage import Stage
from cong.graph.store import StageStore
from cong.publish import TrainedModel, check_target, export
from cong.run import launch
from cong.run.job import Job, job_of
from cong.scales import Scale
from cong.scoring import FunctionReward

TRIED = "Yes, of course."


def planned(request: Request, *, scale: Scale, resources: Resources, store: StageStore) -> Job:
    """Return the job of a request; its name, and that of its report, is the scale's."""
    _check_prompts(request)
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
    page = launch.run(job)
    job.store.fetch([final])
    trained = TrainedModel(root=job.store.root, directory=job.store.directory(final))
    return export(trained, output, report=page.parent), page


def _check_prompts(request: Request) -> None:
    """Raise `UserError` for too few prompts, and for a function that has no reward for a simple response."""
    if not isinstance(request.prompts, PromptFile):
        return
    rows = request.prompts.rows()
    if request.heldout is None and len(rows) < 2:
        raise UserError(
            f"{request.prompts.file.path} holds one prompt, and one is to be held out: give more, or --heldout"
        )
    if isinstance(request.reward, FunctionReward):
        _try(request.reward, prompt=rows[0]["prompt"])


def _try(reward: FunctionReward, *, prompt: str) -> None:
    # Most mistakes show at once, before anything is decoded. What it makes of other rows is theirs.
    tried = f"the reward {reward}, tried on the first prompt and the response {TRIED!r},"
    try:
        value = reward.of({"prompt": prompt, "response": TRIED})
    except Exception as error:
        raise UserError(f"{tried} raised {type(error).__name__}: {error}") from error
    if not math.isfinite(value):
        raise UserError(f"{tried} is {value}")


def _experiment() -> Experiment:
    return load(Path(method.__file__))


def _final_model(job: Job) -> Stage:
    cell = next(cell for cell in job.cells if cell.axes.get("method") == method.CONG)
    model = cell.stage.evaluated_model
    assert isinstance(model, Stage)
    return model
