"""The connection to Ray: a Ray on this machine, or a cluster at an address."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from cong.errors import UserError
from cong.graph.resources import Demand, Resources

CONNECT_SECONDS = 2.0


@contextlib.contextmanager
def connected(resources: Resources) -> Iterator[Demand]:
    """Connect to Ray, yield what it has, and disconnect. A connection that exists already is used and left open."""
    import ray

    ours = not ray.is_initialized()
    if ours:
        _connect(resources)
    try:
        total = ray.cluster_resources()
        yield Demand(cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0))
    finally:
        if ours:
            ray.shutdown()


def _connect(resources: Resources) -> None:
    if resources.address:
        _check_answers(resources.address)
    import ray

    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    where: dict[str, Any] = {"address": resources.address} if resources.address else {"num_cpus": resources.cpus}
    try:
        ray.init(**where, include_dashboard=False if not resources.address else None,
                 log_to_driver=False, logging_level=logging.ERROR)  # fmt: skip
    except Exception as error:
        raise UserError(explain(error, resources.address)) from error


def _check_answers(address: str) -> None:
    """Raise `UserError` when nobody listens at `host:port`; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(f"no connection to Ray at {address}: {error}") from error


def explain(error: Exception, address: str | None) -> str:
    """Turn an error of Ray's connection into one line that says what to do."""
    text = " ".join(str(error).split())
    if "401" in text or "authentication token" in text.lower() or "unauthenticated" in text.lower():
        return (
            f"Ray at {address} refused the connection (401): set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, "
            "or RAY_AUTH_TOKEN_PATH to the cluster's token file"
        )
    where = f"at {address}" if address else "on this machine"
    return f"no connection to Ray {where}: {type(error).__name__}: {text[:200]}"
