"""The observer that mirrors a run into MLflow.

One parent run per `cong run`, a child per cell, and below the cell the stages that were computed for it. Stages write
their curves and records into the store; this process reads them there and passes them on, so no worker talks to the
tracker. While the tracker is away everything waits in the outbox. No error of the tracker ends a run that has begun; a
run whose own database cannot be opened continues untracked.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cong.data import read_rows
from cong.errors import UserError
from cong.experiment import Cell, Results
from cong.graph.journal import read_metrics
from cong.graph.stage import Stage, topological
from cong.graph.store import RECORD, StageStore, lease
from cong.tracking import entries
from cong.tracking.entries import curves_of
from cong.tracking.names import LONGEST_NAME, LONGEST_TAG, PER_BATCH, batches, taken_names, text_of
from cong.tracking.outbox import Outbox
from cong.tracking.server import describe, is_outage, is_own, opened, tracking_uri

PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
PROCESS = "cong.process"
ORIGIN = "cong.run"
"""Tag of a stage's run: the run of `cong run` that computed it, which the stage's record names."""
CELLS = "cells.json"
SAMPLE_ROWS = 20
PATIENCE_SECONDS = 60.0
_BATCH = 900


class Tracker:
    """Observer that mirrors a run into MLflow; all calls come from one thread."""

    def __init__(self, *, store: StageStore, cells: list[Cell], name: str, params: dict[str, Any]) -> None:
        self._store = store
        self._uri = tracking_uri(store)
        self._outbox = Outbox(self._uri, probe=lambda: self._client.search_experiments(max_results=1))
        self._renamed: set[str] = set()
        self._offsets: dict[str, int] = {}
        self._runs: dict[str, str] = {}
        self._cells: list[Cell] = []
        self._cell_runs: dict[str, str] = {}
        self._owner: dict[str, str] = {}
        self._open: set[str] = set()
        self.run_id = self._begun(name)
        """The run of `cong run`; None when nothing can be tracked."""
        self._send(self._close_abandoned)
        self._send(lambda: self._log_params(self.run_id, params))
        for cell in cells:
            self.add(cell)

    def _begun(self, name: str) -> str | None:
        """Open the experiment and its run; raise `UserError` when a server that was asked for cannot be used."""
        try:
            self._client, self._experiment = opened(self._store, name=name)
            return self._create(name, parent=None, tags={PROCESS: json.dumps(lease.this_process())})
        except Exception as error:
            line = describe(self._uri, error)
            if not is_own(self._store):
                raise UserError(line) from error
            print(f"warning: {line}; the run continues untracked", file=sys.stderr, flush=True)
            return None

    def _send(self, call: Callable[[], Any]) -> None:
        if self.run_id is not None:
            self._outbox.send(call)

    def _send_of(self, stage: Stage, call: Callable[[str], Any], *, file: bool = False) -> None:
        self._send_to(self._runs, stage.fingerprint, call, file=file)

    def _send_to(self, runs: dict[str, str], key: str, call: Callable[[str], Any], *, file: bool = False) -> None:
        """Send a call about a run that will have been created by then; one that could not be is left alone."""

        def about() -> None:
            if (run := runs.get(key)) is not None:
                call(run)

        if self.run_id is not None:
            (self._outbox.attach if file else self._outbox.send)(about)

    def add(self, cell: Cell) -> None:
        """Create the run of a cell that was not known when the run began."""
        self._cells.append(cell)
        self._send(lambda: self._add(cell))
        self._send_to(self._cell_runs, cell.name, lambda run: self._log_params(run, cell.axes))

    def started(self, stage: Stage) -> None:
        """Create the stage's run below the first cell that needs it."""
        now = _milliseconds()
        self._send(lambda: self._begin(stage, at=now))
        self._send_of(stage, lambda run: self._log_params(run, entries.fields(stage)))

    def tick(self, running: list[Stage]) -> None:
        """Pass on the new points of the live curves, and what waits for a server that was away."""
        self._outbox.deliver()
        # Points that cannot be sent now are read again later.
        if self._outbox.empty:
            for stage in running:
                self._send_of(stage, lambda run, stage=stage: self._log_curves(stage, run))

    def finished(self, stage: Stage, outcome: str) -> None:
        """Log the stage's results and record, and end its run."""
        if outcome == "made":
            self._store.fetch_small(stage)
            self._send_of(stage, lambda run: self._log_curves(stage, run))
            self._send_of(stage, lambda run: self._log_record(stage, run))
            path = str(self._store.directory(stage) / RECORD)
            self._send_of(stage, lambda run: self._client.log_artifact(run, path), file=True)
            self._send_of(stage, lambda run: self._log_samples(stage, run), file=True)
        self._end(stage, "FINISHED")

    def failed(self, stage: Stage, error: BaseException) -> None:
        """End the stage's run as failed."""
        text = text_of(error, LONGEST_TAG)
        self._send_of(stage, lambda run: self._client.set_tag(run, "cong.error", text))
        self._end(stage, "FAILED")

    def close(self, results: Results | None, files: tuple[Path, ...] = ()) -> None:
        """Log the cells' results and the report, and end all runs; `results` is None after a failure."""
        finished = {result.cell.name: result.values for result in results or []}
        if self.run_id is None:
            return
        for path in files:
            self._outbox.attach(lambda path=path: self._client.log_artifact(self.run_id, str(path), "report"))
        self._outbox.attach(lambda: self._log_table(results or []))
        self._close_cells(finished)
        # Stage runs are open here only after an interrupt, or when their trial died.
        for run in sorted(self._open):
            self._terminate(run, "KILLED")
        self._terminate(self.run_id, "FAILED" if results is None else "FINISHED")
        self._outbox.wait(0 if results is None else PATIENCE_SECONDS)
        if self._renamed:
            print(f"warning: names that MLflow does not take are other ones there: {', '.join(sorted(self._renamed))}",
                  file=sys.stderr, flush=True)  # fmt: skip

    def _begin(self, stage: Stage, *, at: int) -> None:
        tags = {"cong.stage": stage.name, "cong.fingerprint": stage.fingerprint, ORIGIN: self.run_id}
        parent = self._owner.get(stage.fingerprint, self.run_id)
        run = self._create(stage.title, parent=parent, tags=tags, at=at)
        self._runs[stage.fingerprint] = run
        self._open.add(run)

    def _end(self, stage: Stage, status: str) -> None:
        now = _milliseconds()

        def end(run: str) -> None:
            self._client.set_terminated(run, status=status, end_time=now)
            self._open.discard(run)

        self._send_of(stage, end)

    def _terminate(self, run: str, status: str) -> None:
        now = _milliseconds()
        self._outbox.send(lambda: self._client.set_terminated(run, status=status, end_time=now))

    def _create(self, name: str, *, parent: str | None, tags: dict[str, str], at: int | None = None) -> str:
        family = {PARENT: parent} if parent else {}
        name = text_of(name, LONGEST_NAME)
        run = self._client.create_run(self._experiment, start_time=at, tags={**tags, **family}, run_name=name)
        return run.info.run_id

    def _add(self, cell: Cell) -> None:
        run = self._create(cell.name, parent=self.run_id, tags={"cong.fingerprint": cell.stage.fingerprint})
        self._cell_runs[cell.name] = run
        for stage in topological([cell.stage]):
            self._owner.setdefault(stage.fingerprint, run)

    def _close_cells(self, finished: dict[str, dict[str, Any]]) -> None:
        """Log every cell's results, and which run made each of its stages, in this run or in an earlier one."""
        made_by: dict[str, str] = {}
        self._send(lambda: made_by.update(self._makers()))
        for cell in self._cells:
            values, status = finished.get(cell.name, {}), "FINISHED" if cell.name in finished else "FAILED"
            # One call after the other: what is refused of one leaves the others alone.
            self._send_to(self._cell_runs, cell.name, lambda run, cell=cell: self._link_stages(cell, run, made_by))
            self._send_to(self._cell_runs, cell.name, lambda run, values=values: self._log_values(run, values))
            self._send_to(self._cell_runs, cell.name, lambda run, s=status: self._client.set_terminated(run, status=s))

    def _makers(self) -> dict[str, str]:
        """Return the stages' runs by fingerprint, of all runs that the records of the finished stages name."""
        stages = topological([cell.stage for cell in self._cells])
        made = [stage for stage in stages if self._store.fault(stage) is None]
        origins = {self._store.record(stage)["tracking_run"] for stage in made} - {None}
        return {fp: run for origin in sorted(origins) for fp, run in self._stage_runs(origin).items()}

    def _stage_runs(self, origin: str) -> dict[str, str]:
        from mlflow.exceptions import MlflowException

        try:
            experiment = self._client.get_run(origin).info.experiment_id
        except MlflowException as error:
            if is_outage(error):
                raise
            return {}  # It was tracked elsewhere, or has been deleted.
        query = f"tags.`{ORIGIN}` = '{origin}' AND attributes.status = 'FINISHED'"
        runs = self._client.search_runs([experiment], filter_string=query, max_results=50_000)
        return {run.data.tags["cong.fingerprint"]: run.info.run_id for run in runs}

    def _link_stages(self, cell: Cell, run: str, made_by: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        tags, lines = [], ["| stage | fingerprint | made by run |", "|---|---|---|"]
        for stage in topological([cell.stage]):
            if self._store.fault(stage) is None:
                maker = made_by.get(stage.fingerprint)
                link = f"[{maker}](#/experiments/{self._experiment}/runs/{maker})" if maker else "untracked"
                tags.append(RunTag(f"cong.made_by.{stage.name}.{stage.fingerprint[:8]}", maker or "untracked"))
                lines.append(f"| {stage.title} | `{stage.fingerprint[:8]}` | {link} |")
        for some in batches([*tags, RunTag(NOTE, text_of("\n".join(lines), LONGEST_TAG))], PER_BATCH):
            self._client.log_batch(run, tags=some)

    def _log_record(self, stage: Stage, run: str) -> None:
        record = self._store.record(stage)
        self._log_values(run, {**record["results"], "seconds": record["seconds"]})

    def _log_params(self, run: str | None, values: dict[str, Any]) -> None:
        for some in batches(entries.params(values, self._taken(values)), PER_BATCH):
            self._client.log_batch(run, params=some)

    def _log_values(self, run: str, values: dict[str, Any]) -> None:
        for some in batches(entries.metrics(values, self._taken(values), at=_milliseconds()), _BATCH):
            self._client.log_batch(run, metrics=some)

    def _taken(self, names: Iterable[str]) -> dict[str, str]:
        """Return the names under which MLflow takes values, and remember which of them are other ones."""
        found = taken_names(names)
        self._renamed |= {f"{name!r} is {other!r}" for name, other in found.items() if name != other}
        return found

    def _log_table(self, results: Results) -> None:
        """Log one table of all cells, axes and measures, on the parent run."""
        if columns := entries.table([{**result.axes, **result.values} for result in results]):
            self._client.log_table(self.run_id, columns, CELLS)

    def _log_curves(self, stage: Stage, run: str) -> None:

        path = self._store.directory(stage) / "metrics.jsonl"
        points, offset = read_metrics(path, offset=self._offsets.get(stage.fingerprint, 0))
        names = self._taken(dict.fromkeys(key for point in points for key in curves_of(point)))
        for some in batches(entries.of_points(points, names), _BATCH):
            self._client.log_batch(run, metrics=some)
        self._offsets[stage.fingerprint] = offset

    def _log_samples(self, stage: Stage, run: str) -> None:
        for path in sorted(self._store.directory(stage).glob("*.parquet")):
            if columns := entries.table(read_rows(path, limit=SAMPLE_ROWS), but=("response_token_ids",)):
                self._client.log_table(run, columns, f"samples/{path.stem}.json")

    def _close_abandoned(self) -> None:
        """End the runs of earlier processes that were killed."""
        for parent in self._running(f"tags.`{PROCESS}` LIKE '%'"):
            if not lease.is_gone(json.loads(parent.data.tags[PROCESS])):
                continue
            family = [parent.info.run_id]
            for run_id in family:
                family.extend(child.info.run_id for child in self._running(f"tags.`{PARENT}` = '{run_id}'"))
            for run_id in family:
                self._client.set_terminated(run_id, status="KILLED")

    def _running(self, condition: str) -> list[Any]:
        query = f"attributes.status = 'RUNNING' AND {condition}"
        return list(self._client.search_runs([self._experiment], filter_string=query, max_results=5000))


def _milliseconds() -> int:
    return int(time.time() * 1000)
