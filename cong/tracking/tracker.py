"""The observer that mirrors a run into MLflow.

One parent run per `cong run`, a child per cell, and below the cell the stages that were computed for it. Stages write
their curves and records into the store; this process reads them there and passes them on, so no worker talks to the
tracker. While the tracker is away everything waits in the outbox.
"""

import json
import time
from pathlib import Path
from typing import Any

from cong.data import read_rows
from cong.errors import UserError
from cong.experiment import Cell, Results
from cong.graph.journal import read_metrics
from cong.graph.stage import Stage, topological
from cong.graph.store import RECORD, Store, lease
from cong.tracking.outbox import Outbox
from cong.tracking.server import connect, describe, is_outage, open_experiment, tracking_uri

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

    def __init__(self, *, store: Store, cells: list[Cell], name: str, params: dict[str, Any]) -> None:
        self._store = store
        self._uri = tracking_uri(store)
        self._outbox = Outbox(self._uri)
        self._offsets: dict[str, int] = {}
        self._runs: dict[str, str] = {}
        self._cells: dict[str, tuple[Cell, str]] = {}
        self._owner: dict[str, str] = {}
        self._open: set[str] = set()
        try:
            self._client = connect(self._uri)
            self._experiment = open_experiment(self._client, uri=self._uri, store=store, name=name)
            self._close_abandoned()
            tags = {PROCESS: json.dumps(lease.this_process())}
            self.run_id = self._create(name, parent=None, tags=tags)
            self._log_params(self.run_id, params)
            for cell in cells:
                self._add(cell)
        except Exception as error:
            raise UserError(describe(self._uri, error)) from error

    def add(self, cell: Cell) -> None:
        """Create the run of a cell that was not known when the run began."""
        self._outbox.send(lambda: self._add(cell))

    def started(self, stage: Stage) -> None:
        """Create the stage's run below the first cell that needs it."""
        now = _milliseconds()
        self._outbox.send(lambda: self._begin(stage, at=now))
        self._outbox.send(lambda: self._log_params(self._runs[stage.fingerprint], _flat(stage)))

    def tick(self, running: list[Stage]) -> None:
        """Pass on the new points of the live curves, and what waits for a server that was away."""
        self._outbox.deliver()
        # Points that cannot be sent now are read again later.
        if self._outbox.empty:
            for stage in running:
                self._outbox.send(lambda stage=stage: self._log_curves(stage))

    def finished(self, stage: Stage, outcome: str) -> None:
        """Log the stage's results and record, and end its run."""
        if outcome == "made":
            self._store.fetch_small(stage)
            self._outbox.send(lambda: self._log_curves(stage))
            self._outbox.send(lambda: self._log_record(stage))
            self._outbox.send(lambda: self._log_samples(stage))
        self._end(stage, "FINISHED")

    def failed(self, stage: Stage, error: BaseException) -> None:
        """End the stage's run as failed."""
        text = str(error)[:4000]
        self._outbox.send(lambda: self._client.set_tag(self._runs[stage.fingerprint], "cong.error", text))
        self._end(stage, "FAILED")

    def close(self, results: Results | None, files: tuple[Path, ...] = ()) -> None:
        """Log the cells' results and the report, and end all runs; `results` is None after a failure."""
        finished = {result.cell.name: result.values for result in results or []}
        for path in files:
            self._outbox.send(lambda path=path: self._client.log_artifact(self.run_id, str(path), "report"))
        self._outbox.send(lambda: self._log_table(results or []))
        self._outbox.send(lambda: self._close_cells(finished))
        # Stage runs are open here only after an interrupt, or when their trial died.
        for run in sorted(self._open):
            self._terminate(run, "KILLED")
        self._terminate(self.run_id, "FAILED" if results is None else "FINISHED")
        self._outbox.wait(0 if results is None else PATIENCE_SECONDS)

    def _begin(self, stage: Stage, *, at: int) -> None:
        tags = {"cong.stage": stage.name, "cong.fingerprint": stage.fingerprint, ORIGIN: self.run_id}
        parent = self._owner.get(stage.fingerprint, self.run_id)
        run = self._create(stage.title, parent=parent, tags=tags, at=at)
        self._runs[stage.fingerprint] = run
        self._open.add(run)

    def _end(self, stage: Stage, status: str) -> None:
        now = _milliseconds()

        def end() -> None:
            run = self._runs[stage.fingerprint]
            self._client.set_terminated(run, status=status, end_time=now)
            self._open.discard(run)

        self._outbox.send(end)

    def _terminate(self, run: str, status: str) -> None:
        now = _milliseconds()
        self._outbox.send(lambda: self._client.set_terminated(run, status=status, end_time=now))

    def _create(self, name: str, *, parent: str | None, tags: dict[str, str], at: int | None = None) -> str:
        family = {PARENT: parent} if parent else {}
        run = self._client.create_run(self._experiment, start_time=at, tags={**tags, **family}, run_name=name)
        return run.info.run_id

    def _add(self, cell: Cell) -> None:
        run = self._create(cell.name, parent=self.run_id, tags={"cong.fingerprint": cell.stage.fingerprint})
        self._cells[cell.name] = cell, run
        self._log_params(run, cell.axes)
        for stage in topological([cell.stage]):
            self._owner.setdefault(stage.fingerprint, run)

    def _close_cells(self, finished: dict[str, dict[str, Any]]) -> None:
        """Log every cell's results, and which run made each of its stages, in this run or in an earlier one."""
        made_by = self._makers()
        for cell, run in self._cells.values():
            self._link_stages(cell, run, made_by)
            self._log_values(run, finished.get(cell.name, {}))
            self._client.set_terminated(run, status="FINISHED" if cell.name in finished else "FAILED")

    def _makers(self) -> dict[str, str]:
        """Return the stages' runs by fingerprint, of all runs that the records of the finished stages name."""
        stages = topological([cell.stage for cell, _ in self._cells.values()])
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
        self._client.log_batch(run, tags=[*tags, RunTag(NOTE, "\n".join(lines))])

    def _log_record(self, stage: Stage) -> None:
        run, record = self._runs[stage.fingerprint], self._store.record(stage)
        self._log_values(run, {**record["results"], "seconds": record["seconds"]})
        self._client.log_artifact(run, str(self._store.directory(stage) / RECORD))

    def _log_params(self, run: str, values: dict[str, Any]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(run, params=[Param(key, str(value)[:500]) for key, value in values.items()])

    def _log_values(self, run: str, values: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        now = _milliseconds()
        numbers = {key: float(v) for key, v in values.items() if isinstance(v, int | float)}
        self._client.log_batch(run, metrics=[Metric(key, value, now, 0) for key, value in numbers.items()])

    def _log_table(self, results: Results) -> None:
        """Log one table of all cells, axes and measures, on the parent run."""
        rows = [{**result.axes, **result.values} for result in results]
        names = list(dict.fromkeys(name for row in rows for name in row))
        if rows:
            columns = {name: [_plain(row.get(name)) for row in rows] for name in names}
            self._client.log_table(self.run_id, columns, CELLS)

    def _log_curves(self, stage: Stage) -> None:
        from mlflow.entities import Metric

        path = self._store.directory(stage) / "metrics.jsonl"
        points, offset = read_metrics(path, offset=self._offsets.get(stage.fingerprint, 0))
        metrics = [
            Metric(key, float(value), int(point["time"] * 1000), int(point["step"]))
            for point in points
            for key, value in point.items()
            if key not in ("step", "time") and isinstance(value, int | float)
        ]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(self._runs[stage.fingerprint], metrics=metrics[start : start + _BATCH])
        self._offsets[stage.fingerprint] = offset

    def _log_samples(self, stage: Stage) -> None:
        for path in sorted(self._store.directory(stage).glob("*.parquet")):
            rows = read_rows(path, limit=SAMPLE_ROWS)
            if rows:
                columns = {key: [_plain(row[key]) for row in rows] for key in rows[0] if key != "response_token_ids"}
                self._client.log_table(self._runs[stage.fingerprint], columns, f"samples/{path.stem}.json")

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


def _flat(stage: Stage) -> dict[str, Any]:
    """Return a stage's fields as params: numbers and texts by name, inputs by title, the rest as JSON."""
    import dataclasses

    from cong.graph.fingerprint import canonical

    params: dict[str, Any] = {}
    for field in dataclasses.fields(stage):
        value = getattr(stage, field.name)
        if isinstance(value, Stage):
            params[field.name] = f"{value.title} {value.fingerprint[:8]}"
        else:
            params[field.name] = value if isinstance(value, int | float | str) else json.dumps(canonical(value))
    return params


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) or value is None else str(value)
