"""A Ray cluster of three nodes on this machine, with a dashboard and token authentication; a program for tests.

It prints one line of JSON when the cluster is up. Every line of its input, `kill NODE_ID`, kills the processes of a
node; at the end of the input everything is ended.
"""

import json
import os
import signal
import sys
from typing import Any

import psutil
from ray.cluster_utils import Cluster

SMALL: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 80 << 20}


def main() -> None:
    # Ports are left to the kernel: another Ray on this machine may hold the usual ones.
    ports = {"dashboard_port": 0, "dashboard_agent_listen_port": 0}
    head = {**ports, "include_dashboard": True, "dashboard_host": "127.0.0.1", "include_log_monitor": False}
    cluster = Cluster(initialize_head=True, head_node_args={**SMALL, "num_cpus": 0, **head}, shutdown_at_exit=False)
    nodes = [cluster.add_node(**SMALL) for _ in range(2)]
    began = psutil.Process().children(recursive=True)
    try:
        print(json.dumps({"dashboard": f"http://{cluster.webui_url}", "gcs": cluster.gcs_address}), flush=True)
        for line in sys.stdin:
            _kill(nodes, line.removeprefix("kill").strip())
    finally:
        _end([*began, *psutil.Process().children(recursive=True)])


def _kill(nodes: list[Any], node_id: str) -> None:
    node = next(node for node in nodes if node.node_id == node_id)
    # The raylet goes first, so that nothing is told in an orderly way: this is what a power cut looks like.
    raylets = [entry.process.pid for entry in node.all_processes["raylet"]]
    workers = [child for pid in raylets for child in psutil.Process(pid).children(recursive=True)]
    for pid in [*raylets, *(worker.pid for worker in workers)]:
        os.kill(pid, signal.SIGKILL)
    print(json.dumps({"killed": node_id}), flush=True)


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        if process.is_running():
            process.kill()
    psutil.wait_procs(processes, timeout=10)


if __name__ == "__main__":
    main()
