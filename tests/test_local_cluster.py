"""The cluster of several nodes on one machine: nodes in networks of their own, and one that is cut off."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[1] / "cluster" / "local_cluster.py"


def _can_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    made = subprocess.run(["ip", "netns", "add", "cong-try"], capture_output=True, check=False).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", "cong-try"], check=True)
    return made


@contextlib.contextmanager
def _cluster(*options: str, environment: dict[str, str]) -> Iterator[str]:
    """The cluster, by the address of its dashboard, which its first line holds."""
    cluster = subprocess.Popen(
        [sys.executable, str(PROGRAM), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert cluster.stdout is not None
        submit = cluster.stdout.readline().split()
        assert submit[:2] == ["cong", "submit"]
        yield submit[submit.index("--address") + 1]
    finally:
        cluster.communicate("", timeout=60)
    assert cluster.returncode == 0


def _until(condition: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.5)


def test_a_cluster_admits_its_owner_who_has_set_nothing_and_no_stranger(tmp_path):
    (tmp_path / "stranger").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    environment["HOME"] = str(tmp_path)
    with _cluster("--nodes", "1", "--cpus", "1", environment=environment) as dashboard:
        options = ["--store", str(tmp_path / "runs"), "--address", dashboard]
        command = [sys.executable, "-m", "cong.cli", "status", *options]
        owner = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        home = {"HOME": str(tmp_path / "stranger")}
        stranger = subprocess.run(command, env=environment | home, capture_output=True, text=True, check=False)
    assert (owner.returncode, owner.stderr) == (0, "")
    assert stranger.returncode == 2
    assert "(401)" in stranger.stderr


@pytest.mark.skipif(not _can_make_namespaces(), reason="network namespaces need root and the command `ip`")
def test_a_node_in_its_own_network_that_is_cut_off_is_lost_to_the_cluster_and_nothing_is_left_behind():
    from ray.util.state import list_nodes

    quick = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5"}
    environment = os.environ | quick | {"RAY_AUTH_MODE": "disabled"}
    with _cluster("--nodes", "1", "--cpus", "1", "--namespaces", environment=environment) as dashboard:

        def alive() -> set[str]:
            nodes: list[Any] = list_nodes(address=dashboard)
            return {node.node_ip for node in nodes if node.state == "ALIVE"}

        assert alive() == {"10.77.0.1", "10.77.0.2"}
        subprocess.run(["ip", "-n", "cong-1", "link", "set", "eth0", "down"], check=True)
        _until(lambda: alive() == {"10.77.0.1"}, seconds=60)
    listed = subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout
    assert not [link["ifname"] for link in json.loads(listed) if link["ifname"].startswith("cong")]
