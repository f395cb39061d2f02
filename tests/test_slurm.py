"""The Slurm script: on two "nodes" of this machine with a real Ray, and its ends with programs that only stand in."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cong.experiment import collect, load
from cong.graph.resources import load_profile
from cong.graph.store import Store
from cong.scales import scale

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "cluster" / "slurm.sh"
DATA = Path(__file__).parent / "data" / "slurm"
BIN = Path(sys.executable).parent


def start(tmp_path: Path, *arguments: str, nodes: str, path: list[Path]) -> subprocess.Popen:
    """Start the script as Slurm would, in a session of its own."""
    job = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": nodes,
        "SLURM_CPUS_PER_TASK": "1",
        "CALLS": str(tmp_path / "calls"),
        "PATH": os.pathsep.join([*map(str, path), str(BIN), os.environ["PATH"]]),
    }
    output = (tmp_path / "output").open("w")
    return subprocess.Popen(
        ["bash", SCRIPT, *arguments], env=os.environ | job, stdout=output, stderr=output, start_new_session=True
    )


def test_shellcheck_finds_nothing_in_the_script():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    done = subprocess.run([BIN / "shellcheck", SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_script_asks_for_a_node_of_the_profile_that_it_names():
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", SCRIPT.read_text(), re.MULTILINE))
    demand = load_profile("h100x8").training_demand()
    assert int(asked["gpus-per-node"]) == demand.gpus
    assert int(asked["cpus-per-task"]) > demand.cpus


def test_two_nodes_form_a_cluster_that_runs_the_experiment_and_nothing_is_left(tmp_path):
    process = start(tmp_path, str(DATA / "where.py"), "--store", str(tmp_path / "store"), nodes="a,b", path=[DATA])
    try:
        assert process.wait(timeout=400) == 0, (tmp_path / "output").read_text()
    finally:
        _kill_session(process)
    cells = load(DATA / "where.py").cells(scale("tiny"), {})
    found = collect(cells, Store(tmp_path / "store"))
    assert [result.values["nodes"] for result in found] == [2, 2]
    assert len({result.values["node"] for result in found}) == 2
    assert not Path(f"/tmp/ray-{os.getpid()}").exists()
    assert not _left_behind()


def _left_behind() -> list[str]:
    mark = f"/tmp/ray-{os.getpid()}/"
    found = [path.read_bytes().decode(errors="replace") for path in _command_lines()]
    return [line for line in found if mark in line]


def _command_lines() -> list[Path]:
    return [path / "cmdline" for path in Path("/proc").iterdir() if path.name.isdigit() and (path / "cmdline").exists()]


def _kill_session(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def stand_ins(tmp_path) -> Path:
    """Programs in the place of Ray, Python and `cong`: `cong` ends as its first argument says, or waits to be told."""
    directory = tmp_path / "bin"
    directory.mkdir()
    scripts = {
        "ray": 'echo "ray $*" >>"$CALLS"; exec sleep 60',
        # The address of this node; else it is asked to wait for so many nodes.
        "python": "[[ $1 != -c ]] || exec echo 192.0.2.7\n"
        'until [[ $(grep -c "^ray start" "$CALLS") == "$3" ]]; do sleep 0.02; done',
        "cong": 'echo "cong $*" >>"$CALLS"\n[[ $2 == wait ]] || exit "$2"\n'
        'trap "exit 130" INT\nfor ((i = 0; i < 300; i++)); do sleep 0.1; done',
    }
    for name, body in scripts.items():
        (directory / name).write_text(f"#!/bin/bash\n{body}\n")
        (directory / name).chmod(0o755)
    return directory


def _calls(tmp_path: Path) -> list[str]:
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(("nodes", "workers"), [("a", 0), ("a,b,c,d", 3)])
@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_job_ends_with_the_exit_code_of_the_run_on_any_number_of_nodes(tmp_path, stand_ins, nodes, workers, code):
    process = start(tmp_path, str(code), nodes=nodes, path=[stand_ins, DATA])
    assert process.wait(timeout=240) == code
    calls = _calls(tmp_path)
    address = f"192.0.2.7:{20000 + os.getpid() % 10000}"
    assert f"cong run {code} --address {address}" in calls
    assert sum(call.startswith("ray start --head ") for call in calls) == 1
    assert sum(call.startswith(f"ray start --address={address} ") for call in calls) == workers
    assert not any("requeue" in call for call in calls)


@pytest.mark.parametrize(("sent", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_before_its_time_is_up_a_job_stops_and_is_queued_again_and_a_cancelled_one_is_not(
    tmp_path, stand_ins, sent, requeued
):
    process = start(tmp_path, "wait", nodes="a,b", path=[stand_ins, DATA])
    try:
        while not any(call.startswith("cong run") for call in _calls(tmp_path)):
            assert process.poll() is None, (tmp_path / "output").read_text()
            time.sleep(0.05)
        os.kill(process.pid, sent)
        assert process.wait(timeout=240) == 130
    finally:
        _kill_session(process)
    assert (f"requeue {os.getpid()}" in _calls(tmp_path)) == requeued
