"""A Ray cluster of three nodes on this machine, with a dashboard: a program for tests.

It prints one line of JSON when the cluster is up. Every line of its input, 1 or 2, kills that node as a power cut
would; at the end of the input everything is ended. All files lie in `RAY_TMPDIR`, which has to be set; with
`RAY_AUTH_MODE=token` and `RAY_AUTH_TOKEN` nobody is admitted without the token.
"""

import json
import os
import signal
import sys
from typing import Any

import psutil
from ray.cluster_utils import Cluster

SMALL: dict[str, Any] = {"object_store_memory": 80 << 20, "dashboard_agent_listen_port": 0}


def main() -> None:
    try:
        cluster, nodes = _start(os.environ["RAY_TMPDIR"])
        print(json.dumps({"dashboard": f"http://{cluster.webui_url}", "gcs": cluster.gcs_address}), flush=True)
        for line in sys.stdin:
            _kill(nodes[int(line) - 1])
    finally:
        _end(psutil.Process().children(recursive=True))


def _start(directory: str) -> tuple[Cluster, list[Any]]:
    # Ports are left to the kernel: another Ray on this machine may hold the usual ones. Every node has a directory of
    # its own, as it would on a machine of its own: two that share one take each other's unpacked projects away.
    head = {"dashboard_port": 0, "include_dashboard": True, "dashboard_host": "127.0.0.1", "include_log_monitor": False}
    cluster = Cluster(initialize_head=True, head_node_args={**SMALL, **head, "num_cpus": 0}, shutdown_at_exit=False)
    return cluster, [cluster.add_node(**SMALL, num_cpus=2, temp_dir=f"{directory}/{number}") for number in (1, 2)]


def _kill(node: Any) -> None:
    # The raylet goes first, so that nothing is told in an orderly way: this is what a power cut looks like.
    raylets = [entry.process.pid for entry in node.all_processes["raylet"]]
    workers = [child.pid for pid in raylets for child in psutil.Process(pid).children(recursive=True)]
    for pid in [*raylets, *workers]:
        os.kill(pid, signal.SIGKILL)
    print("killed", flush=True)


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        if process.is_running():
            process.kill()
    psutil.wait_procs(processes, timeout=10)


if __name__ == "__main__":
    main()
