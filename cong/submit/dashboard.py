"""What a Ray cluster's dashboard says of the cluster, asked within seconds and without importing Ray.

    cluster = reach("http://head:8265")
    cluster.capacity        # CPUs and GPUs of every node

Whoever answers wrongly, or not at all, is reported in one line. Where Ray's token authentication is on, the token comes
from `RAY_AUTH_TOKEN`, from the file `RAY_AUTH_TOKEN_PATH`, or from `~/.ray/auth_token`, as for Ray's own commands; it
is sent to nobody who has not asked for one.
"""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from cong.errors import UserError
from cong.graph.cluster import autoscaled, capacity_of, refused
from cong.graph.demand import Capacity

ANSWER_SECONDS = 5.0
LEAST_PYTHON = (3, 11)
LEAST_RAY = (2, 60)


class _TokenStays(HTTPRedirectHandler):
    """Follows a redirect to another scheme, host or port without the token, which was meant for the first."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        redirected = super().redirect_request(req, fp, code, msg, headers, newurl)
        if redirected is not None and urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
            redirected.remove_header("Authorization")
        return redirected


_OPENER = build_opener(_TokenStays)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster whose dashboard answered."""

    address: str
    headers: Mapping[str, str] = field(repr=False)
    ray: str
    python: str
    capacity: Capacity
    here: bool
    """Whether all its nodes are this very machine, so that paths mean the same here and there."""


def reach(address: str) -> Cluster:
    """Ask the dashboard at an address; raise `UserError` when it cannot be used."""
    address = normal(address)
    headers = _admission(address)
    try:
        known = _ask(address, "/api/v0/cluster_metadata", headers)["data"]
        cluster = Cluster(
            address=address,
            headers=headers,
            ray=known["rayVersion"],
            python=known["pythonVersion"],
            **_nodes(address, headers),
        )
        _check_versions(cluster)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        # JSON of another form: another service, or a proxy that answers for one.
        raise _no_dashboard(address) from error
    return cluster


def normal(address: str) -> str:
    """Return the dashboard's address with its scheme and without a slash at its end."""
    full = address.rstrip("/") if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(full)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 80) > 0
    except ValueError:
        good = False
    if not good:
        raise UserError(f"--address {address}: give the address of Ray's dashboard, such as http://HEAD:8265")
    return full.rstrip("/")


def _admission(address: str) -> dict[str, str]:
    """Return the headers that open the dashboard: none, or the token where it asks for one."""
    try:
        _fetch(address, "/api/version", {})["ray_version"]
        return {}
    except HTTPError as error:
        if error.code != 401:
            raise _no_dashboard(address) from error
    except KeyError as error:
        raise _no_dashboard(address) from error
    token = _token()
    if token is None:
        raise UserError(refused(address, 401))
    headers = {"Authorization": f"Bearer {token}"}
    _ask(address, "/api/version", headers)
    return headers


def _token() -> str | None:
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(given) if given else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text().strip() or None
    except OSError as error:
        if given:
            raise UserError(f"RAY_AUTH_TOKEN_PATH: {path} cannot be read: {error.strerror}") from error
        return None


def _ask(address: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    try:
        return _fetch(address, path, headers)
    except HTTPError as error:
        if error.code in (401, 403):
            raise UserError(refused(address, error.code)) from error
        raise UserError(f"Ray's dashboard at {address} answered {error.code} to {path}") from error


def _fetch(address: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    try:
        with _OPENER.open(Request(address + path, headers=dict(headers)), timeout=ANSWER_SECONDS) as answer:
            found = json.load(answer)
    except HTTPError:
        raise
    except (HTTPException, ValueError) as error:
        raise _no_dashboard(address) from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"no connection to Ray's dashboard at {address}: {reason}") from error
    if not isinstance(found, dict):
        raise _no_dashboard(address)
    return found


def _no_dashboard(address: str) -> UserError:
    return UserError(f"what listens at {address} is no Ray dashboard; that is on port 8265 of the head node by default")


def _nodes(address: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return what the living nodes have, whether they are this machine, and whether there may be more of them."""
    answer = _ask(address, "/api/v0/nodes?detail=1&limit=10000", headers)
    alive = [node for node in answer["data"]["result"]["result"] if node["state"] == "ALIVE"]
    status = _ask(address, "/api/cluster_status", headers)["data"].get("clusterStatus")
    return {
        "capacity": capacity_of([node["resources_total"] for node in alive], grows=_grows(status)),
        "here": {node["node_ip"] for node in alive} <= _own_addresses(),
    }


def _own_addresses() -> set[str]:
    import psutil

    return {entry.address for entries in psutil.net_if_addrs().values() for entry in entries}


def _grows(status: dict[str, Any] | None) -> bool:
    """Tell whether an autoscaler may add nodes; where nothing is said of it, the run itself finds out."""
    if status is None:
        return True
    return autoscaled((status.get("autoscalerReport") or {}).get("nodeTypeMapping") or {})


def _check_versions(cluster: Cluster) -> None:
    for name, there, least in (("Python", cluster.python, LEAST_PYTHON), ("Ray", cluster.ray, LEAST_RAY)):
        if _version(there) < least:
            needed = ".".join(map(str, least))
            raise UserError(f"the cluster at {cluster.address} has {name} {there}: {needed} or newer is needed")


def differences(cluster: Cluster) -> list[str]:
    """Return in which versions cluster and client differ: no obstacle, as all of a run is on the cluster."""
    from importlib.metadata import version

    pairs = (("Python", cluster.python, platform.python_version()), ("Ray", cluster.ray, version("ray")))
    return [
        f"the cluster has {name} {there}, this machine {here}"
        for name, there, here in pairs
        if _version(there)[:2] != _version(here)[:2]
    ]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])
