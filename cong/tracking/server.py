"""The way to MLflow: where it is, whether it answers, and how its errors are shown without secrets."""

import logging
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cong.errors import UserError
from cong.graph.store import StageStore
from cong.tracking import database
from cong.tracking.names import text_of

URI = "MLFLOW_TRACKING_URI"
_PAGE = "not in a valid JSON format"
"""In the error of MLflow's client about an answer that is no JSON."""
LOCAL_UI = "http://127.0.0.1:5000"
"""Where `mlflow ui` listens unless it is given another port."""

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it older UIs guess, and show the pages of applications of language models instead of runs and curves."""


def tracking_uri(store: StageStore) -> str:
    """Return `MLFLOW_TRACKING_URI` when it is set, else that of a SQLite database inside the store."""
    return os.environ.get(URI) or database.uri_of(store.root)


def is_own(store: StageStore) -> bool:
    """Tell whether a run is tracked in the store's own database, which nobody has asked for."""
    return tracking_uri(store) != os.environ.get(URI)


def check_tracking(store: StageStore) -> None:
    """Raise `UserError` when the tracker does not answer."""
    uri = tracking_uri(store)
    try:
        _ready(store)
        connect(uri).search_experiments(max_results=1)
    except Exception as error:
        raise UserError(describe(uri, error)) from error


def connect(uri: str) -> Any:
    """Return a client; nothing is asked of the server yet."""
    logging.getLogger("alembic").setLevel(logging.ERROR)
    # A server that is away is noticed within seconds instead of minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow

    # Where it was imported before, it has read its level already.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return mlflow.MlflowClient(tracking_uri=uri)


def opened(store: StageStore, *, name: str) -> tuple[Any, str]:
    """Return a client and the id of the experiment of this name."""
    uri = _ready(store)
    client = connect(uri)
    return client, open_experiment(client, uri=uri, store=store, name=name)


def _ready(store: StageStore) -> str:
    """Return the address, behind which there is a database if it is one; MLflow would try for minutes to open one."""
    if is_own(store):
        database.prepare(store.root, connect=connect)
    uri = tracking_uri(store)
    database.check(uri)
    return uri


def open_experiment(client: Any, *, uri: str, store: StageStore, name: str) -> str:
    """Return the id of the experiment of this name, made when it is not there, and restored when it was deleted."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        local = uri.startswith("sqlite:")
        try:
            return client.create_experiment(name, artifact_location=_artifacts(store) if local else None, tags=KIND)
        except MlflowException:
            # Another run that begins now may have made it.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
        print(f"note: the experiment {name} had been deleted in MLflow, and is restored", file=sys.stderr, flush=True)
    return found.experiment_id


def _artifacts(store: StageStore) -> str:
    return (store.root / "mlartifacts").resolve().as_uri()


def is_outage(error: Exception) -> bool:
    """Tell an error that passes, such as a server that is away, from a call that will fail again."""
    from mlflow.exceptions import MlflowException

    refused = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST",
               "INVALID_STATE")  # fmt: skip
    if isinstance(error, MlflowException):
        return error.error_code not in refused
    return isinstance(error, OSError) and not isinstance(error, PermissionError | FileNotFoundError)


def ways_to_see(store: StageStore, *, name: str) -> list[str]:
    """Return what shows an experiment in MLflow's UI: the command that starts a local one, and the page's address.

    Only with the workflow in its address the UI begins with runs: else it shows applications of language models.
    """
    uri = tracking_uri(store)
    remote = uri.startswith(("http:", "https:"))
    shown = without_password(uri).rstrip("/")
    ways = [] if remote else [f"{Path(sys.executable).with_name('mlflow')} ui --backend-store-uri {shown}"]
    try:
        found = connect(_ready(store)).get_experiment_by_name(name)
    except Exception:
        found = None  # What is wrong with it was said before.
    page = f"/experiments/{found.experiment_id}?workflowType=machine_learning" if found else ""
    return [*ways, f"{shown if remote else LOCAL_UI}/#{page}"]


def without_password(uri: str) -> str:
    """Return an address that may be shown: `http://user:secret@host` loses its user and secret."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def describe(uri: str, error: Exception | None = None) -> str:
    """Return one line that names the server and the error, if any, without the secrets of the address."""
    where = f"MLflow at {without_password(uri)}"
    if error is None:
        return where
    secret = urlsplit(uri).netloc.rpartition("@")[0]
    text = " ".join(text_of(error).split())
    shown = text.replace(f"{secret}@", "") if secret else text
    if _PAGE in text:
        return f"{where} does not answer: what listens there sends pages instead, such as a proxy's login page"
    how = "does not answer" if is_outage(error) else "does not take it"
    return f"{where} {how}: {type(error).__name__}: {shown[:200]}"
