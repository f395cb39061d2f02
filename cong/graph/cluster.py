"""The connection to Ray: a Ray on this machine, or a cluster at an address."""

# pyright: basic
# Ray states no types of what is used here.

import contextlib
import json
import logging
import os
import socket
from collections.abc import Generator, Mapping
from typing import Any

from cong.errors import UserError
from cong.graph.demand import Capacity, Demand
from cong.graph.environment import stage_environment
from cong.graph.resources import Resources

CONNECT_SECONDS = 2.0


@contextlib.contextmanager
def connected(resources: Resources) -> Generator[Capacity]:
    """Connect to Ray, yield what its nodes have, and disconnect. A connection that exists is used and left open."""
    import ray

    ours = not ray.is_initialized()
    if ours:
        _connect(resources)
    try:
        yield capacity_of([node["Resources"] for node in ray.nodes() if node["Alive"]], grows=_grows())
    finally:
        if ours:
            ray.shutdown()


def capacity_of(nodes: list[dict[str, float]], *, grows: bool) -> Capacity:
    """Return the capacity of nodes, each described by Ray's resources."""
    demands = tuple(Demand(cpus=node.get("CPU", 0.0), gpus=node.get("GPU", 0.0)) for node in nodes)
    return Capacity(nodes=demands, grows=grows)


def autoscaled(types: Mapping[str, str]) -> bool:
    """Tell from the nodes' types whether there is an autoscaler: without one Ray calls every node a type of its own."""
    return any(kind != f"node_{node}" for node, kind in types.items())


def _grows() -> bool:
    # Neither has a public name. The first autoscaler leaves its report with Ray, the second its groups of nodes.
    from ray._private.state import state
    from ray.experimental.internal_kv import _internal_kv_get

    report = json.loads(_internal_kv_get("__autoscaling_status") or "{}").get("autoscaler_report") or {}
    groups = state.get_cluster_config()
    return autoscaled(report.get("node_type_mapping") or {}) or bool(groups and groups.node_group_configs)


def this_node() -> dict[str, float]:
    """Return the resources of a process that is to run on the node of this one, beside those that it needs."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    # Ray's own name of the node, which is not its address everywhere.
    name = next(name for name in node["Resources"] if name.startswith("node:") and not name.endswith("head__"))
    return {name: 0.0001}


def node_with_room(demand: Demand) -> Any:
    """Wait until a node has room for all of a demand, and return the strategy that puts a task there.

    It is not kept free: what comes in between is waited for by the processes that the task starts.
    """
    import ray
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    wanted = {"CPU": demand.cpus, "GPU": demand.gpus}
    group = placement_group([{name: number for name, number in wanted.items() if number}])
    try:
        ray.get(group.ready())
        node = placement_group_table(group)["bundles_to_node_id"][0]
    finally:
        remove_placement_group(group)
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _connect(resources: Resources) -> None:
    if resources.cluster.address:
        # "auto" takes what this variable names first.
        named = os.environ.get("RAY_ADDRESS") if resources.cluster.address == "auto" else None
        _check_answers(named or resources.cluster.address)
    import ray

    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    # Without "local", Ray would look for another Ray on this machine, and refuse a number of CPUs.
    local = {"address": "local", "num_cpus": resources.cluster.cpus}
    where: dict[str, Any] = {"address": resources.cluster.address} if resources.cluster.address else local
    # The workers of a Ray that is started here inherit this process's environment.
    inherited = (
        contextlib.nullcontext()
        if resources.cluster.address
        else stage_environment(further=resources.cluster.let_through)
    )
    try:
        with inherited:
            ray.init(**where, include_dashboard=False if not resources.cluster.address else None,
                     log_to_driver=False, logging_level=logging.ERROR)  # fmt: skip
    except Exception as error:
        raise UserError(explain(error, resources.cluster.address)) from error


def _check_answers(address: str) -> None:
    """Raise `UserError` when nobody listens at `host:port`; Ray itself would try for minutes.

    An address of Ray Client (`ray://`) is refused: through it a driver has no node of its own, and sees no others.
    """
    scheme, separator, rest = address.partition("://")
    if separator:
        host = rest.rpartition(":")[0] or rest
        raise UserError(
            f"--address {address}: {scheme}:// is not for a run, which is a part of the cluster: use "
            f"--address auto on one of its nodes, {host}:6379 from its network, or from elsewhere cong submit with "
            f"--address http://{host}:8265"
        )
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(f"no connection to Ray at {address}: {error}") from error


def explain(error: Exception, address: str | None) -> str:
    """Turn an error of Ray's connection into one line that says what to do."""
    text = " ".join(str(error).split())
    if "403" in text or "invalid authentication token" in text.lower():
        return refused(address, 403)
    if "401" in text or "authentication token" in text.lower() or "unauthenticated" in text.lower():
        return refused(address, 401)
    where = f"at {address}" if address else "on this machine"
    if "AF_UNIX path length" in text:
        return f"Ray cannot start {where}: its temporary directory has too long a path; set RAY_TMPDIR to a short one"
    return f"no connection to Ray {where}: {type(error).__name__}: {text[:200]}"


def refused(address: str | None, code: int) -> str:
    """Return what to do when Ray asks for a token (401), or does not know the one that it was given (403)."""
    if code == 403:
        return f"Ray at {address} does not know the token (403): it is not the one that its nodes were started with"
    return (
        f"Ray at {address} refused the connection (401): set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, "
        "or RAY_AUTH_TOKEN_PATH to the cluster's token file"
    )
