"""Decode a file of prompts without any experiment: what `cong decode` does.

Input rows have `prompt` (one user turn) or `messages` (a chat), and maybe a `prompt_id`. An
interrupted decoding continues where it stopped; a row that cannot be decoded keeps its `error`, the others are decoded.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cong.data import Row, row_seed, write_rows
from cong.data.jsonlines import whole_text
from cong.data.map_rows import map_rows
from cong.errors import UserError
from cong.generation.backends import backend_note, check_backend
from cong.generation.decode import DecodeJob, Decoder
from cong.generation.inputs import HubSplit, asked, check_source, read_source, row_fault, source_identity
from cong.graph.cluster import connected
from cong.graph.fingerprint import fingerprint
from cong.graph.journal import replace_text
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.models import LocalModel, check_model, check_pair, largest

COLUMNS = (
    "prompt_id", "prompt", "alpha", "response", "response_token_ids", "num_tokens", "finish_reason",
    "logprob_post", "logprob_pre", "implicit_reward", "error",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FileJob:
    """A decoding from file to file. `settings` are those of the engine."""

    post: Path
    pre: Path | None
    prompts: Path | HubSplit
    output: Path
    alphas: tuple[float, ...]
    settings: dict[str, Any]
    seed: int
    resources: Resources


def decode_file(job: FileJob) -> tuple[int, int]:
    """Decode and write the output; return how many rows were decoded and how many failed."""
    _check(job)
    base = LocalModel(path=str(job.pre or job.post))
    job = dataclasses.replace(job, resources=job.resources.for_size(largest(base)))
    rows = list(_rows(job))
    work = job.output.with_name(f"{job.output.name}.work")
    _claim(work, job)
    good = [row for row in rows if row["error"] is None]
    context = Context(out=work, resources=job.resources, root=work, locate=_no_inputs)
    make_worker = partial(
        Decoder, DecodeJob(post=job.post, pre=job.pre, settings=job.settings, resources=job.resources)
    )
    if job.resources.uses_actors:
        with connected(job.resources):
            decoded = map_rows(context, make_worker, good, max_error_share=1.0)
    else:
        decoded = map_rows(context, make_worker, good, max_error_share=1.0)
    by_id = {row["row_id"]: row for row in decoded}
    finished = [{column: (by_id.get(row["row_id"]) or row).get(column) for column in COLUMNS} for row in rows]
    note = backend_note(job.resources, adapter=LocalModel(path=str(job.post)).is_adapter)
    write_rows(job.output, finished, notes={"cong.backend": note})
    shutil.rmtree(work)
    failed = sum(row["error"] is not None for row in finished)
    return len(finished) - failed, failed


def _check(job: FileJob) -> None:
    post = LocalModel(path=str(job.post))
    check_model(post, adapter=job.pre is not None)
    if job.pre is not None:
        check_model(LocalModel(path=str(job.pre)))
        check_pair(post, LocalModel(path=str(job.pre)))
    check_backend(job.resources, adapter=post.is_adapter)
    check_source(job.prompts)
    for alpha in job.alphas:
        if not 0 <= alpha <= 1:
            raise UserError(f"alpha = {alpha} is not in [0, 1]")
    try:
        job.output.parent.mkdir(parents=True, exist_ok=True)
        job.output.with_name(f".{job.output.name}.probe").touch()
        job.output.with_name(f".{job.output.name}.probe").unlink()
    except OSError as error:
        raise UserError(f"{job.output} cannot be written: {error.strerror}") from error
    _check_settings(job.settings)


def _check_settings(settings: dict[str, Any]) -> None:
    from cong.decoding import Decoding

    try:
        Decoding(**settings)
    except ValueError as error:
        raise UserError(str(error)) from error


def _claim(work: Path, job: FileJob) -> None:
    """Make the working directory, or find that it belongs to this very decoding."""
    identity = fingerprint(
        [
            job.settings,
            list(job.alphas),
            job.seed,
            job.resources.hardware.dtype,
            *_models(job),
            source_identity(job.prompts),
        ]
    )
    note = work / "decoding.json"
    if note.exists() and json.loads(note.read_text())["fingerprint"] != identity:
        raise UserError(
            f"{work} holds a decoding with other settings, prompts or models: delete it or choose another --output"
        )
    work.mkdir(exist_ok=True)
    replace_text(note, json.dumps({"fingerprint": identity}))


def _models(job: FileJob) -> list[LocalModel]:
    return [LocalModel(path=str(path)) for path in (job.post, job.pre) if path is not None]


def _rows(job: FileJob) -> Iterator[Row]:
    seen: set[str] = set()
    for number, row in enumerate(read_source(job.prompts), start=1):
        prompt_id = _prompt_id(row, number)
        error = row.get("error") or row_fault(row, prompt_id, seen)
        turns = asked(row) if error is None else None
        seen.add(prompt_id)
        for alpha in job.alphas:
            yield {
                "row_id": f"{number}#{alpha!r}",
                "prompt_id": prompt_id,
                "prompt": whole_text(row["prompt"]) if isinstance(row.get("prompt"), str) else None,
                "messages": json.dumps(turns) if turns else None,
                "sample": 0,
                "seed": row_seed(seed=job.seed, prompt_id=prompt_id),
                "alpha": alpha,
                "error": error and f"row {number}: {error}",
            }


def _prompt_id(row: Row, number: int) -> str:
    given = row.get("prompt_id")
    return f"row-{number:06d}" if given is None or given == "" else whole_text(str(given))


def _no_inputs(stage: Stage) -> Path:
    raise AssertionError(f"a decoding of a file has no input stages, not {stage.title}")
