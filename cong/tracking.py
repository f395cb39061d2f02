"""MLflow: the only module that imports it.

One parent run per `cong run`, a child per cell, and below the cell the stages that were computed for it. Stages write
their curves and records into the store; this process reads them there and passes them on, so no worker talks to the
tracker, and a tracker that fails costs a warning, not a result.
"""

import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cong.data import read_rows
from cong.errors import UserError
from cong.experiment import Cell, Results
from cong.graph import lease
from cong.graph.journal import read_metrics
from cong.graph.plan import Plan
from cong.graph.stage import Stage, topological
from cong.graph.store import RECORD, Store

PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
PROCESS = "cong.process"
CELLS = "cells.json"
SAMPLE_ROWS = 20
_BATCH = 900


def tracking_uri(store: Store) -> str:
    """Return `MLFLOW_TRACKING_URI` when it is set, else a SQLite database inside the store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(store.root / 'mlflow.db').resolve()}"


def check_tracking(store: Store) -> None:
    """Raise `UserError` when the tracker does not answer."""
    uri = tracking_uri(store)
    try:
        _client(uri).search_experiments(max_results=1)
    except Exception as error:
        raise UserError(_silent(uri, error)) from error


def _tolerant(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a tracker that goes away cost one warning: from then on nothing more is sent, and the run goes on."""

    @functools.wraps(method)
    def called(self: "Tracker", *arguments: Any) -> Any:
        from mlflow.exceptions import MlflowException

        if self.broken:
            return None
        try:
            return method(self, *arguments)
        except (MlflowException, OSError) as error:
            self.broken = True
            print(f"warning: {_silent(self._uri, error)}; the run goes on, all results are in the store",
                  file=sys.stderr, flush=True)  # fmt: skip
            return None

    return called


class Tracker:
    """Observer that mirrors a run into MLflow."""

    def __init__(self, *, store: Store, plan: Plan, cells: list[Cell], name: str, params: dict[str, Any]) -> None:
        self._store, self._cells = store, cells
        self._uri = tracking_uri(store)
        self._offsets: dict[str, int] = {}
        self._runs: dict[str, str] = {}
        self._open: set[str] = set()
        self.broken = False
        try:
            self._client, self._experiment = _connect(self._uri, store, name)
            self._close_abandoned()
            self._parent = self._create(name, parent=None, tags={PROCESS: json.dumps(lease.this_process())})
            self._log_params(self._parent, params)
            self._cell_runs = [self._create_cell(cell) for cell in cells]
        except Exception as error:
            raise UserError(_silent(self._uri, error)) from error
        self._owner = _owners(plan, cells, self._cell_runs)

    @_tolerant
    def started(self, stage: Stage) -> str | None:
        """Create the stage's run below the first cell that needs it."""
        tags = {"cong.stage": stage.name, "cong.fingerprint": stage.fingerprint}
        run = self._create(stage.title, parent=self._owner.get(stage.fingerprint, self._parent), tags=tags)
        self._runs[stage.fingerprint] = run
        self._open.add(run)
        self._log_params(run, _flat(stage))
        return run

    @_tolerant
    def tick(self, running: list[Stage]) -> None:
        """Pass on the new points of the live curves."""
        for stage in running:
            self._log_curves(stage)

    @_tolerant
    def finished(self, stage: Stage, outcome: str) -> None:
        """Log the stage's results and record, and end its run."""
        run = self._runs[stage.fingerprint]
        record = self._store.record(stage)
        if outcome == "hit":
            # Another process made it between the plan and now.
            self._client.set_tag(run, "cong.made_by", record["tracking_run"] or "")
        else:
            self._log_curves(stage)
            self._log_values(run, {**record["results"], "seconds": record["seconds"]})
            self._client.log_artifact(run, str(self._store.directory(stage) / RECORD))
            self._log_samples(run, stage)
        self._end(run, "FINISHED")

    @_tolerant
    def failed(self, stage: Stage, error: BaseException) -> None:
        """End the stage's run as failed."""
        self._client.set_tag(self._runs[stage.fingerprint], "cong.error", str(error)[:4000])
        self._end(self._runs[stage.fingerprint], "FAILED")

    @_tolerant
    def close(self, results: Results | None, files: tuple[Path, ...] = ()) -> None:
        """Log the cells' results and the report, and end all runs; `results` is None after a failure."""
        finished = {result.cell.name: result.values for result in results or []}
        for cell, run in zip(self._cells, self._cell_runs, strict=True):
            self._link_stages(cell, run)
            self._log_values(run, finished.get(cell.name, {}))
        for path in files:
            self._client.log_artifact(self._parent, str(path), "report")
        self._log_cells(results or [])
        # Stage runs are open here only after an interrupt.
        for run in sorted(self._open):
            self._end(run, "KILLED")
        for cell, run in zip(self._cells, self._cell_runs, strict=True):
            self._client.set_terminated(run, status="FINISHED" if cell.name in finished else "FAILED")
        self._client.set_terminated(self._parent, status="FAILED" if results is None else "FINISHED")

    def _end(self, run: str, status: str) -> None:
        self._client.set_terminated(run, status=status)
        self._open.discard(run)

    def _create(self, name: str, *, parent: str | None, tags: dict[str, str]) -> str:
        family = {PARENT: parent} if parent else {}
        run = self._client.create_run(self._experiment, tags={**tags, **family}, run_name=name)
        return run.info.run_id

    def _create_cell(self, cell: Cell) -> str:
        run = self._create(cell.name, parent=self._parent, tags={"cong.fingerprint": cell.stage.fingerprint})
        self._log_params(run, cell.axes)
        return run

    def _link_stages(self, cell: Cell, run: str) -> None:
        """List on the cell's page which run made each of its stages, in this run or in an earlier one."""
        lines = []
        for stage in topological([cell.stage]):
            if self._store.fault(stage) is None:
                made_by = self._store.record(stage)["tracking_run"]
                self._client.set_tag(run, f"cong.made_by.{stage.name}.{stage.fingerprint[:8]}", made_by or "untracked")
                link = f"[{made_by}](#/experiments/{self._experiment}/runs/{made_by})" if made_by else "untracked"
                lines.append(f"| {stage.title} | `{stage.fingerprint[:8]}` | {link} |")
        self._client.set_tag(run, NOTE, "\n".join(["| stage | fingerprint | made by run |", "|---|---|---|", *lines]))

    def _log_params(self, run: str, values: dict[str, Any]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(run, params=[Param(key, str(value)[:500]) for key, value in values.items()])

    def _log_values(self, run: str, values: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        numbers = {key: float(v) for key, v in values.items() if isinstance(v, int | float)}
        self._client.log_batch(run, metrics=[Metric(key, value, now, 0) for key, value in numbers.items()])

    def _log_cells(self, results: Results) -> None:
        """Log one table of all cells, axes and measures, on the parent run."""
        rows = [{**result.axes, **result.values} for result in results]
        names = list(dict.fromkeys(name for row in rows for name in row))
        if rows:
            columns = {name: [_plain(row.get(name)) for row in rows] for name in names}
            self._client.log_table(self._parent, columns, CELLS)

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

    def _log_samples(self, run: str, stage: Stage) -> None:
        for path in sorted(self._store.directory(stage).glob("*.parquet")):
            rows = read_rows(path, limit=SAMPLE_ROWS)
            if rows:
                columns = {key: [_plain(row[key]) for row in rows] for key in rows[0] if key != "response_token_ids"}
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


def _client(uri: str) -> Any:
    logging.getLogger("alembic").setLevel(logging.ERROR)
    # A server that is away is reported within seconds instead of minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    import mlflow

    return mlflow.MlflowClient(tracking_uri=uri)


def without_password(uri: str) -> str:
    """Return an address that may be shown: `http://user:secret@host` loses its user and secret."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def _silent(uri: str, error: Exception) -> str:
    secret = urlsplit(uri).netloc.rpartition("@")[0]
    text = " ".join(str(error).split())
    shown = text.replace(f"{secret}@", "") if secret else text
    return f"MLflow at {without_password(uri)} does not answer: {type(error).__name__}: {shown[:200]}"


def _connect(uri: str, store: Store, name: str) -> tuple[Any, str]:
    client = _client(uri)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return client, found.experiment_id
    local = uri.startswith("sqlite:")
    return client, client.create_experiment(name, artifact_location=_artifacts(store) if local else None)


def _artifacts(store: Store) -> str:
    return (store.root / "mlartifacts").resolve().as_uri()


def _owners(plan: Plan, cells: list[Cell], runs: list[str]) -> dict[str, str]:
    """Return, per stage to run, the run of the first cell that needs it."""
    todo = {stage.fingerprint for stage in plan.todo}
    owners: dict[str, str] = {}
    for cell, run in zip(cells, runs, strict=True):
        for stage in topological([cell.stage]):
            if stage.fingerprint in todo:
                owners.setdefault(stage.fingerprint, run)
    return owners


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
