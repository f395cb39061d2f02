"""Experiments on a real cluster of three nodes, submitted through Ray Jobs; and every mistake before that."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_experiment import QUICKSTART, ROOT

from cong import dashboard, launch
from cong.errors import UserError
from cong.graph.resources import Capacity, Demand, load_profile
from cong.graph.runner import check_capacity
from cong.graph.store import Store

TOKEN = "a-token-of-the-tests-that-nobody-guesses"
SECRET = "do-not-write-me-down"
EXPERIMENT = ROOT / "tests" / "numbers_experiment.py"


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


def start(*arguments: str, env: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "cong.cli", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def cong(*arguments: str, env: dict[str, str]) -> tuple[int, str]:
    process = start(*arguments, env=env)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def submit(nodes: Nodes, project: Path, *more: str, **env: str) -> tuple[int, str]:
    store = project.parents[1] / "store"
    arguments = ["submit", str(project), "--store", str(store), "--address", nodes.dashboard, *more]
    return cong(*arguments, env=nodes.member | env)


def status(nodes: Nodes, project: Path) -> str:
    arguments = ["status", "--store", str(project.parents[1] / "store"), "--address", nodes.dashboard]
    code, output = cong(*arguments, env=nodes.member)
    assert code == 0, output
    return output


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
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


# Mistakes, with a cluster.


def one_line(code: int, output: str, message: str) -> None:
    assert code == 2, output
    assert message in output
    assert output.startswith("error: ")
    assert len(output.strip().splitlines()) == 1


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


# Mistakes, before any cluster is asked.


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (["--address", "http://127.0.0.1:1"], {}, "no connection to Ray's dashboard at http://127.0.0.1:1"),
        (["--address", "ray://head:10001"], {}, "--address ray://head:10001: give the address of Ray's dashboard"),
        (["--address", "auto:x"], {}, "--address auto:x: give the address of Ray's dashboard"),
        ([], {}, "Missing option '--address'"),
        (["--env", "NAME"], {}, "--env NAME: write KEY=VALUE"),
        (["--env", "HF_TOKEN=hf_x"], {}, "--env HF_TOKEN: Ray shows a job's environment to everybody"),
        ([], {"MLFLOW_TRACKING_URI": f"http://me:{SECRET}@host"}, "MLFLOW_TRACKING_URI holds a password"),
        (["--working-dir", "/no/such"], {}, "--working-dir /no/such: there is no such directory"),
        (["--working-dir", str(ROOT / "cong")], {}, "does not hold the experiment file"),
        (["--profile", "moon"], {}, "unknown profile 'moon'"),
        (["--set", "colour=red"], {}, "unknown axis 'colour'"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_sent(project, arguments, env, message):
    here = [] if "--address" in arguments or "Missing" in message else ["--address", "http://127.0.0.1:1"]
    code, output = cong("submit", str(project), *here, *arguments, env=env | {"RAY_API_SERVER_ADDRESS": ""})
    one_line(code, output, message)
    assert SECRET not in output


def test_the_paper_scale_on_a_profile_without_gpus_is_refused(tmp_path):
    arguments = ["--scale", "paper", "--address", "http://127.0.0.1:1", "--store", str(tmp_path)]
    one_line(*cong("submit", str(QUICKSTART), *arguments, env={}), "needs a GPU at scale paper, and profile laptop")


# What a dashboard answers.


class Answers(BaseHTTPRequestHandler):
    """A server of canned answers: clusters that no test machine can be."""

    answers: dict[str, Any]

    def do_GET(self) -> None:
        answer = self.answers.get(self.path.partition("?")[0])
        if answer is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[dict[str, Any]], str]]:
    servers = []

    def started(answers: dict[str, Any]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("These", (Answers,), {"answers": answers}))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield started
    for server in servers:
        server.shutdown()
        server.server_close()


def cluster_of(*nodes: dict[str, float], ray: str = "2.60.0", python: str = "3.11.9", scaled: bool = False) -> dict:
    ip, types = "10.99.0.7", {"abc": "gpu-workers" if scaled else "node_abc"}
    rows = [{"state": "ALIVE", "node_ip": ip, "resources_total": node} for node in nodes]
    dead = {"state": "DEAD", "node_ip": ip, "resources_total": {"CPU": 1000.0, "GPU": 1000.0}}
    return {
        "/api/version": {"ray_version": ray},
        "/api/v0/cluster_metadata": {"data": {"rayVersion": ray, "pythonVersion": python}},
        "/api/v0/nodes": {"data": {"result": {"result": [*rows, dead]}}},
        "/api/cluster_status": {"data": {"clusterStatus": {"autoscalerReport": {"nodeTypeMapping": types}}}},
    }


def test_a_cluster_with_too_few_gpus_is_told_before_anything_is_sent(serve, tmp_path):
    address = serve(cluster_of({"CPU": 64.0}, {"CPU": 64.0, "GPU": 4.0}))
    arguments = ["--scale", "paper", "--profile", "h200x8", "--address", address, "--store", str(tmp_path)]
    one_line(*cong("submit", str(QUICKSTART), *arguments, env={}), "needs 8 GPUs, the cluster has 4")


def test_a_cluster_that_grows_may_have_too_little_now(serve, tmp_path):
    cluster = dashboard.reach(serve(cluster_of({"CPU": 64.0}, scaled=True)))
    assert cluster.capacity.grows
    profile = load_profile("h200x8")
    job = launch.prepare(QUICKSTART, scale="tiny", assignments=[], resources=profile, store=Store(tmp_path))
    note = check_capacity(job.plan, profile, cluster.capacity)
    assert note is not None
    assert note.endswith("GPUs, the cluster has 0: its autoscaler has to add nodes")


def test_a_relative_store_is_refused_on_a_cluster_elsewhere(serve, project):
    address = serve(cluster_of({"CPU": 64.0}))
    code, output = cong("submit", str(project), "--address", address, env={})
    one_line(code, output, "--store runs is relative, and the cluster is elsewhere")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({}, "is no Ray dashboard"),
        ({"/api/version": b"<html>hello</html>"}, "is no Ray dashboard"),
        ({"/api/version": [1]}, "is no Ray dashboard"),
        ({"/api/version": {"name": "another service"}}, "is no Ray dashboard"),
        (cluster_of({"CPU": 1.0}, python="3.9.1"), "has Python 3.9.1: 3.11 or newer is needed"),
        (cluster_of({"CPU": 1.0}, ray="2.9.3"), "has Ray 2.9.3: 2.60 or newer is needed"),
    ],
)
def test_what_is_no_dashboard_or_too_old_a_cluster_is_refused(serve, answers, message):
    with pytest.raises(UserError, match=message):
        dashboard.reach(serve(answers))


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(dashboard, "ANSWER_SECONDS", 0.2)
    refused = pytest.raises(UserError, match=r"no connection to Ray's dashboard at .*timed out")
    with socket.create_server(("127.0.0.1", 0)) as silent, refused:
        dashboard.reach(f"127.0.0.1:{silent.getsockname()[1]}")


def test_other_versions_are_named(serve):
    cluster = dashboard.reach(serve(cluster_of({"CPU": 1.0}, ray="2.99.0", python="3.12.1")))
    assert [text.partition(", ")[0] for text in dashboard.differences(cluster)] == [
        "the cluster has Python 3.12.1",
        "the cluster has Ray 2.99.0",
    ]


def test_a_stage_in_one_process_needs_one_node_and_several_processes_may_be_apart():
    two = Capacity(nodes=(Demand(cpus=8, gpus=4), Demand(cpus=8, gpus=4), Demand(cpus=64)))
    assert two.lack(Demand(cpus=8, gpus=4)) is None
    assert two.lack(Demand(cpus=8, gpus=8, processes=8)) is None
    assert two.lack(Demand(cpus=8, gpus=8)) == (
        "needs 8 CPU 8 GPU on one node, the cluster has 80 CPU 8 GPU on 3 nodes (2 x 8 CPU 4 GPU, 1 x 64 CPU)"
    )
    assert two.lack(Demand(cpus=32, gpus=8, processes=8)) == (
        "needs 8 times 4 CPU 1 GPU on one node each, the cluster has room for 4: "
        "80 CPU 8 GPU on 3 nodes (2 x 8 CPU 4 GPU, 1 x 64 CPU)"
    )


# What happens on a cluster.


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
    output, _ = process.communicate(timeout=30)
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
