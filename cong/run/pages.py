"""The pages of an experiment: its report, the pages of its parts, and what everything cost."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cong.errors import UserError
from cong.experiment import Results, collect
from cong.graph.plan import check_makers
from cong.graph.stage import Stage
from cong.run.job import Job

if TYPE_CHECKING:
    from cong.report import Block, Report


def report(job: Job) -> "Report":
    """Write the report of a finished experiment; raise `UserError` when cells are missing."""
    if missing := job.unfinished:
        raise UserError(
            f"{len(missing)} of {len(job.cells)} cells are not finished, the first is {missing[0]}: run first"
        )
    from cong.report.browser import browse

    check_makers(job.plan, job.store)
    results = collect(job.cells, job.store)
    pages = job.experiment.pages(results)
    # Where the parts of an experiment have pages, it is there that their responses are looked at.
    last = None if pages else browse(results)
    blocks = [block for block in (*job.experiment.report(results), last) if block]
    written = write_page(job, name=job.name, blocks=blocks, stages=job.plan.stages, results=results)
    further = _write_further(written.page.parent, pages)
    job.store.share(written.page.parent)
    return replace(written, files=(*written.files, *further))


def _write_further(directory: Path, pages: list[Any]) -> list[Path]:
    """Write the further pages of an experiment that has any, beside the first."""
    from cong.report import write_report
    from cong.report.browser import browse

    files: list[Path] = []
    for page in pages:
        blocks = [block for block in (*page.blocks, browse(page.results)) if block]
        written = write_report(directory, name=page.name, title=page.title, description=page.description, blocks=blocks)
        files += (written.page, written.page.with_suffix(".md"))
    return files


def write_page(job: Job, *, name: str, blocks: "list[Block]", stages: Sequence[Stage], results: Results) -> "Report":
    """Write a page of the store's reports, with what its stages and the methods of its results cost."""
    from cong.report import write_report
    from cong.report.costpage import as_csv, cost_blocks

    return write_report(
        job.store.root / "reports" / name,
        name=name,
        title=job.experiment.title,
        description=job.experiment.description,
        blocks=[*blocks, *cost_blocks(stages, job.store, results)],
        attachments={f"{name}-costs.csv": as_csv(stages, job.store)},
    )
