"""The cluster of several nodes on one machine: whom it admits, and a node that is cut off from its network."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

PROGRAM = Path(__file__).parents[1] / "cluster" / "local_cluster.py"


def _can_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    made = subprocess.run(["ip", "netns", "add", "cong-try"], capture_output=True, check=False).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", "cong-try"], check=True)
    return made


NAMESPACES = _can_make_namespaces()


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running cluster, and the environment of who has started it without setting anything."""

    dashboard: str
    owner: dict[str, str]

    def alive(self) -> set[str]:
        """Return the addresses of the nodes that are there."""
        token = (Path(self.owner["HOME"]) / ".ray" / "auth_token").read_text().strip()
        asked = Request(f"{self.dashboard}/api/v0/nodes", headers={"Authorization": f"Bearer {token}"})
        nodes = json.load(urlopen(asked, timeout=10))["data"]["result"]["result"]
        return {node["node_ip"] for node in nodes if node["state"] == "ALIVE"}


@pytest.fixture(scope="module")
def agents_port() -> Iterator[None]:
    """What Ray's agents listen on by default is taken, as it is by another Ray of this machine."""
    with socket.socket() as held:
        with contextlib.suppress(OSError):  # Then another Ray has it.
            held.bind(("", 52365))
            held.listen()
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, agents_port):
    # A check that is not answered is waited for 10 seconds, unless it is given another port.
    quick = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5",
             "RAY_health_check_timeout_ms": "1000"}  # fmt: skip
    unset = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    owner = unset | quick | {"HOME": str(tmp_path_factory.mktemp("owner"))}
    command = [sys.executable, str(PROGRAM), "--nodes", "1", "--cpus", "1", *(["--namespaces"] if NAMESPACES else [])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=owner)
    try:
        assert process.stdout is not None
        submit = process.stdout.readline().split()
        assert submit[:2] == ["cong", "submit"]
        yield Cluster(dashboard=submit[submit.index("--address") + 1], owner=owner)
    finally:
        process.communicate("", timeout=60)
    assert process.returncode == 0
    listed = (
        subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout if NAMESPACES else "[]"
    )
    assert not [link["ifname"] for link in json.loads(listed) if link["ifname"].startswith("cong")]


def _until(condition: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.5)


def test_it_admits_its_owner_who_has_set_nothing_and_no_stranger(cluster, tmp_path):
    options = ["--store", str(tmp_path / "runs"), "--address", cluster.dashboard]
    command = [sys.executable, "-m", "cong.cli", "status", *options]
    owner = subprocess.run(command, env=cluster.owner, capture_output=True, text=True, check=False)
    home = {"HOME": str(tmp_path)}
    stranger = subprocess.run(command, env=cluster.owner | home, capture_output=True, text=True, check=False)
    assert (owner.returncode, owner.stderr) == (0, "")
    assert stranger.returncode == 2
    assert "(401)" in stranger.stderr


def test_it_takes_jobs_beside_another_ray_on_the_machine(cluster):
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "job", "submit", "--no-wait", "--address", cluster.dashboard, "--", "true"]
    asked = {"RAY_AUTH_MODE": "token"}

    def taken() -> bool:
        return subprocess.run(command, env=cluster.owner | asked, capture_output=True, check=False).returncode == 0

    # Its agents may still be starting.
    _until(taken, seconds=60)


@pytest.mark.skipif(not NAMESPACES, reason="network namespaces need root and the command `ip`")
def test_a_node_in_its_own_network_that_is_cut_off_is_lost_to_the_cluster(cluster):
    assert cluster.alive() == {"10.77.0.1", "10.77.0.2"}
    subprocess.run(["ip", "-n", "cong-1", "link", "set", "eth0", "down"], check=True)
    _until(lambda: cluster.alive() == {"10.77.0.1"}, seconds=60)
