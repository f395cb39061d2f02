"""A real Ray cluster of several nodes on this machine: for demonstrations, and for trying what a lost node does.

    python cluster/local_cluster.py --nodes 2 --cpus 2
    sudo -E env PATH="$PATH" python cluster/local_cluster.py --nodes 2 --namespaces

With `--namespaces` every node but the head has a network of its own, as machines have, and can be cut off from the
others without a process being ended: `ip -n cong-1 link set eth0 down`. It ends with Ctrl-C, or with its input.

Unless RAY_AUTH_MODE says otherwise, it admits those who know the token in ~/.ray/auth_token, as `cong` then does.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

BRIDGE, HEAD = "cong-bridge", "10.77.0.1"
START_SECONDS = 120
RAY = str(Path(sys.executable).with_name("ray"))


@contextlib.contextmanager
def namespaces(count: int) -> Iterator[list[str]]:
    """Make network namespaces `cong-1` ... that reach each other and 10.77.0.1, this machine, over a bridge."""
    names = [f"cong-{number}" for number in range(1, count + 1)]
    try:
        _ip(f"link add {BRIDGE} type bridge", f"addr add {HEAD}/24 dev {BRIDGE}", f"link set {BRIDGE} up")
        for number, name in enumerate(names, start=1):
            _ip(
                f"netns add {name}",
                f"link add cong-veth{number} type veth peer name eth0 netns {name}",
                f"link set cong-veth{number} master {BRIDGE} up",
                f"-n {name} addr add {address(number)}/24 dev eth0",
                f"-n {name} link set eth0 up",
                f"-n {name} link set lo up",
            )
        yield names
    finally:
        # A namespace lives as long as a process in it, whatever became of its name.
        links = [BRIDGE, *(f"cong-veth{number}" for number in range(1, count + 1))]
        for command in [*(["netns", "del", name] for name in names), *(["link", "del", link] for link in links)]:
            subprocess.run(["ip", *command], stderr=subprocess.DEVNULL, check=False)


def address(number: int) -> str:
    """Return the address of a node: 1 is the first beside the head."""
    return f"10.77.0.{number + 1}"


def _ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A started node."""

    process: subprocess.Popen
    log: Path


def start(arguments: argparse.Namespace, names: list[str], directory: Path, nodes: list[Node]) -> str:
    """Start head and nodes, add them to `nodes`, and return the dashboard's address when all have joined."""
    head = HEAD if names else "127.0.0.1"
    ports = {name: _free_port() for name in ("port", "dashboard-port", "ray-client-server-port")}
    options = [f"--{name}={value}" for name, value in ports.items()]
    # The head takes no work: it is the one machine that may not be lost.
    nodes.append(_node(directory / "0", head, "--head", *options, "--num-cpus=0"))
    dashboard = f"http://127.0.0.1:{ports['dashboard-port']}"
    _wait(lambda: _alive(dashboard) == 1, nodes)
    for number in range(1, arguments.nodes + 1):
        inside = ["ip", "netns", "exec", names[number - 1]] if names else []
        where = address(number) if names else head
        joined = f"--address={head}:{ports['port']}"
        nodes.append(_node(directory / str(number), where, joined, f"--num-cpus={arguments.cpus}", prefix=inside))
    _wait(lambda: _alive(dashboard) == arguments.nodes + 1, nodes)
    return dashboard


def ask_for_token() -> None:
    """Let nodes and this process agree on the token: Ray's own default depends on whether the file is there."""
    if "RAY_AUTH_MODE" in os.environ:
        return
    if not any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        subprocess.run([RAY, "get-auth-token", "--generate"], stdout=subprocess.DEVNULL, check=True)
    # Before the first import of ray, which reads it once.
    os.environ["RAY_AUTH_MODE"] = "token"


def _node(directory: Path, where: str, *options: str, prefix: list[str] | None = None) -> Node:
    directory.mkdir()
    # Nodes that share a directory take each other's unpacked projects away; an agent whose port another Ray of this
    # machine has takes no jobs.
    common = [f"--temp-dir={directory}", f"--node-ip-address={where}", "--object-store-memory=80000000"]
    common.append("--dashboard-agent-listen-port=0")
    ray = [RAY, "start", "--block", "--disable-usage-stats", *common, *options]
    log = directory / "log"
    with log.open("w") as file:
        process = subprocess.Popen([*(prefix or []), *ray], stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    return Node(process=process, log=log)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _alive(dashboard: str) -> int:
    from ray.util.state import list_nodes
    from ray.util.state.exception import RayStateApiException, ServerUnavailable

    try:
        nodes: list[Any] = list_nodes(address=dashboard)
        return sum(node.state == "ALIVE" for node in nodes)
    except (RayStateApiException, ServerUnavailable):
        return 0  # It answers some seconds after its port does.


def _wait(condition: Callable[[], bool], nodes: list[Node]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        ended = [node for node in nodes if node.process.poll() is not None]
        if ended or time.monotonic() > deadline:
            what = "a node ended" if ended else f"the cluster did not start within {START_SECONDS} s"
            sys.exit(f"error: {what}; the end of its log:\n{[*ended, nodes[-1]][0].log.read_text()[-2000:]}")
        time.sleep(0.5)


def end(nodes: list[Node]) -> None:
    """Kill every process of every node."""
    for node in reversed(nodes):
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(node.process.pid)
            for one in [*family.children(recursive=True), family]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        node.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2, help="beside the head, which takes no work")
    parser.add_argument("--cpus", type=int, default=2, help="logical CPUs of a node")
    parser.add_argument("--namespaces", action="store_true", help="a network for every node; Linux, as root")
    arguments = parser.parse_args()
    if arguments.namespaces and (os.geteuid() != 0 or shutil.which("ip") is None):
        parser.error("--namespaces needs root and the command `ip`")
    ask_for_token()
    nodes: list[Node] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as directory:
        made = namespaces(arguments.nodes) if arguments.namespaces else contextlib.nullcontext([])
        with made as names:
            try:
                dashboard = start(arguments, names, Path(directory), nodes)
                print(f"cong submit experiments/alpha_sweep.py --address {dashboard} --store runs", flush=True)
                sys.stdin.read()
            except KeyboardInterrupt:
                print("ending")
            finally:
                end(nodes)


if __name__ == "__main__":
    main()
