"""Experiments on a real cluster of three nodes, submitted through Ray Jobs: what is refused, and what happens there."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import EXPERIMENT, QUICKSTART, ROOT, SECRET, cong, one_line, start

TOKEN = "a-token-of-the-tests-that-nobody-guesses"


class Nodes:
    """The cluster's program, and commands with and without its token."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        admission = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        quick = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "2"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "three_nodes.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(directory / "cluster.log").open("w"),
            text=True,
            cwd=directory,
            env=os.environ | admission | quick | {"RAY_TMPDIR": str(directory), "PATH": path},
        )
        up = self._answer()
        assert up, (directory / "cluster.log").read_text()
        self.dashboard, self.gcs = json.loads(up)["dashboard"], json.loads(up)["gcs"]
        # A token in the home directory is found, too: these commands have none.
        self.stranger = {"HOME": str(directory), "RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": ""}
        # One tracker for all jobs: making its database takes longer than everything else in them.
        self.member = self.stranger | admission | {"MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db"}

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def kill(self, number: int) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        assert self._answer() == "killed\n"

    def end(self) -> None:
        began = psutil.Process(self._process.pid).children(recursive=True)
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)
        assert psutil.wait_procs(began, timeout=10)[1] == []


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """One cluster for all tests. Its directory's name is short: Ray's sockets lie in it."""
    directory = Path(tempfile.mkdtemp(dir="/tmp", prefix="cong"))
    made = Nodes(directory)
    yield made
    made.end()
    shutil.rmtree(directory)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that is no checkout of cong."""
    path = tmp_path / "project" / "numbers_experiment.py"
    path.parent.mkdir()
    path.write_text(EXPERIMENT.read_text())
    return path


def submit(nodes: Nodes, project: Path, *more: str, **env: str) -> tuple[int, str]:
    store = project.parents[1] / "store"
    arguments = ["submit", str(project), "--store", str(store), "--address", nodes.dashboard, *more]
    return cong(*arguments, env=nodes.member | env)


def status(nodes: Nodes, project: Path) -> str:
    arguments = ["status", "--store", str(project.parents[1] / "store"), "--address", nodes.dashboard]
    code, output = cong(*arguments, env=nodes.member)
    assert code == 0, output
    return output


def until(condition: Callable[[], Any], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def job_of(output: str) -> str:
    found = re.search(r"^job: +(\S+)$", output, re.MULTILINE)
    assert found, output
    return found[1]


def state_of(output: str, job: str) -> str:
    return next(line.split()[1] for line in output.splitlines() if line.startswith(job))


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({}, "refused the connection (401): set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": "another-token-that-is-not-the-one"}, "does not know the token (403)"),
        ({"RAY_AUTH_TOKEN_PATH": "/no/such/token"}, "RAY_AUTH_TOKEN_PATH: /no/such/token cannot be read"),
    ],
)
def test_who_has_not_the_token_is_told_so(nodes, project, env, message):
    arguments = ["submit", str(project), "--address", nodes.dashboard]
    one_line(*cong(*arguments, env=nodes.stranger | env), message)


def test_a_token_file_opens_the_dashboard(nodes, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    env = nodes.stranger | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    code, output = cong("logs", "nobody", "--address", nodes.dashboard, env=env)
    one_line(code, output, f"there is no job nobody at {nodes.dashboard}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "cpus=3"], "Number(value=1) needs 3 CPU on one node, the cluster has 4 CPU on 3 nodes"),
        (["--set", "cpus=8"], "Number(value=1) needs 8 CPUs, the cluster has 4"),
        (["--profile", "l40x4"], "needs 4 GPUs, the cluster has 0"),
    ],
)
def test_a_plan_that_the_cluster_cannot_hold_is_refused(nodes, project, arguments, message):
    experiment = project if "--set" in arguments else QUICKSTART
    store = ["--store", str(project.parent / "store")]
    one_line(*cong("submit", str(experiment), "--address", nodes.dashboard, *store, *arguments, env=nodes.member),
             message)  # fmt: skip


def test_a_run_that_is_not_submitted_is_refused_for_the_same_reason(nodes, project):
    arguments = ["--set", "cpus=3", "--address", nodes.gcs, "--store", str(project.parent / "store")]
    code, output = cong("run", str(project), *arguments, env=nodes.member)
    assert code == 2
    assert "error: Number(value=1) needs 3 CPU on one node, the cluster has 4 CPU on 3 nodes" in output


def test_a_run_on_this_machine_leaves_the_cluster_that_is_here_alone(nodes, project):
    env = nodes.member | {"RAY_TMPDIR": str(nodes.directory)}
    code, output = cong("run", str(project), "--set", "values=1", "--store", str(project.parent / "store"), env=env)
    assert code == 0, output
    assert "1 stages computed" in output


def test_a_job_that_is_not_there_cannot_be_cancelled(nodes):
    code, output = cong("cancel", "nobody", "--address", nodes.dashboard, env=nodes.member)
    one_line(code, output, f"there is no job nobody at {nodes.dashboard}; the latest are")


def test_a_failed_job_gives_its_exit_code_and_no_secret_is_written_anywhere(nodes, project):
    code, output = submit(nodes, project, "--set", "values=1,-2", HF_TOKEN=SECRET)
    shown = status(nodes, project)
    assert code == 1, output
    assert "note: HF_TOKEN is set here: Ray shows a job's environment to everybody" in output
    assert "FAILED Number(value=-2): RuntimeError: a number is negative" in output
    assert state_of(shown, job_of(output)) == "failed"
    assert f"failed: 1 stage, job {job_of(output)}" in shown
    record = json.loads(next((project.parents[1] / "store").glob("Number/value=1-*/record.json")).read_text())
    assert "working_dir_files" in record["results"]["cong"], "the cluster ran another cong than this one"
    assert record["results"]["token"] == "none"
    assert record["commit"]
    written = [path for path in nodes.directory.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert written == []


def test_ctrl_c_leaves_the_job_running_and_cancel_ends_it(nodes, project):
    beside = project.parents[1]
    (beside / "hold").touch()
    store = ["--store", str(beside / "store"), "--address", nodes.dashboard]
    process = start("submit", str(project), *store, env=nodes.member)
    until(lambda: len(list(beside.glob("began-*"))) == 2 or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    job = job_of(output)
    assert process.returncode == 130, output
    assert f"cong logs {job} --follow --address {nodes.dashboard}" in output
    assert state_of(status(nodes, project), job) == "running"
    code, cancelled = cong("cancel", job, "--address", nodes.dashboard, env=nodes.member)
    assert code == 0
    assert "What was finished is kept; submit the same command again to go on." in cancelled
    shown = status(nodes, project)
    assert state_of(shown, job) == "stopped"
    assert f"interrupted, job {job}" in shown
    assert "2 unfinished" in shown
    assert not (beside / "store" / "mlflow.db").exists(), "the tracker's address was not handed on"
    code, log = cong("logs", job, "--follow", "--address", nodes.dashboard, env=nodes.member)
    assert code == 1
    assert log.rstrip().endswith(f"job {job} was cancelled")


def test_a_node_that_dies_costs_no_result(nodes, project):
    beside = project.parents[1]
    (beside / "hold").touch()
    code, output = submit(nodes, project, "--set", "values=1,2,3,4", "--detach")
    assert code == 0, output
    until(lambda: len(list(beside.glob("began-*"))) == 4)
    shown = status(nodes, project)
    assert state_of(shown, job_of(output)) == "running"
    assert f"job {job_of(output)}" in shown
    assert "0 of 4" in shown
    assert "4 running" in shown
    nodes.kill(2)
    (beside / "hold").unlink()
    code, log = cong("logs", job_of(output), "--follow", "--address", nodes.dashboard, env=nodes.member)
    assert code == 0, log
    # Two of the four stages lay on the node, and were run once more.
    assert len(list(beside.glob("began-*"))) == 6
    assert "4 of 4" in status(nodes, project)
    table = (beside / "store" / "reports" / "numbers_experiment-tiny" / "numbers_experiment-tiny.md").read_text()
    assert [row for row in table.splitlines() if re.match(r"\| \d", row)] == [f"| {n} | {n} |" for n in (1, 2, 3, 4)]
