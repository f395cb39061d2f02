"""The way to MLflow: where it is, whether it answers, and how its errors are told without secrets."""

import logging
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cong.errors import UserError
from cong.graph.store import Store

LOCAL_UI = "http://127.0.0.1:5000"
"""Where `mlflow ui` listens unless it is told otherwise."""

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it older UIs guess, and show the pages of applications of language models instead of runs and curves."""


def tracking_uri(store: Store) -> str:
    """Return `MLFLOW_TRACKING_URI` when it is set, else a SQLite database inside the store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(store.root / 'mlflow.db').resolve()}"


def check_tracking(store: Store) -> None:
    """Raise `UserError` when the tracker does not answer."""
    uri = tracking_uri(store)
    try:
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
    import mlflow

    return mlflow.MlflowClient(tracking_uri=uri)


def open_experiment(client: Any, *, uri: str, store: Store, name: str) -> str:
    """Return the id of the experiment of this name, made when it is not there."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    local = uri.startswith("sqlite:")
    return client.create_experiment(name, artifact_location=_artifacts(store) if local else None, tags=KIND)


def _artifacts(store: Store) -> str:
    return (store.root / "mlartifacts").resolve().as_uri()


def is_outage(error: Exception) -> bool:
    """Tell an error that passes, such as a server that is away, from a call that will fail again."""
    from mlflow.exceptions import MlflowException

    refused = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")
    return isinstance(error, OSError) or (isinstance(error, MlflowException) and error.error_code not in refused)


def ways_to_see(store: Store, *, name: str) -> list[str]:
    """Return what shows an experiment in MLflow's UI: the command that starts a local one, and the page's address.

    Only with the workflow in its address the UI begins with runs: else it shows applications of language models.
    """
    uri = tracking_uri(store)
    remote = uri.startswith(("http:", "https:"))
    shown = without_password(uri).rstrip("/")
    ways = [] if remote else [f"{Path(sys.executable).with_name('mlflow')} ui --backend-store-uri {shown}"]
    try:
        found = connect(uri).get_experiment_by_name(name)
    except Exception as error:
        if not is_outage(error):
            raise
        found = None  # That it is away was said before.
    page = f"/experiments/{found.experiment_id}?workflowType=machine_learning" if found else ""
    return [*ways, f"{shown if remote else LOCAL_UI}/#{page}"]


def without_password(uri: str) -> str:
    """Return an address that may be shown: `http://user:secret@host` loses its user and secret."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def describe(uri: str, error: Exception) -> str:
    """Return one line that names the server and the error, without the secrets of the address."""
    secret = urlsplit(uri).netloc.rpartition("@")[0]
    text = " ".join(str(error).split())
    shown = text.replace(f"{secret}@", "") if secret else text
    return f"MLflow at {without_password(uri)} does not answer: {type(error).__name__}: {shown[:200]}"
