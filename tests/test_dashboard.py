"""Every mistake of a submission that is seen before anything is sent; the clusters are canned answers of a server."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from commands import EXPERIMENT, QUICKSTART, ROOT, SECRET, cong, one_line

from cong.errors import UserError
from cong.graph.demand import Capacity, Demand
from cong.graph.resources import load_profile
from cong.graph.runner import check_capacity
from cong.graph.store import Store
from cong.run.job import prepare
from cong.submit import dashboard
from cong.submit.jobs import Jobs, Submission
from cong.submit.packing import Packed


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that is no checkout of cong."""
    path = tmp_path / "project" / "numbers_experiment.py"
    path.parent.mkdir()
    path.write_text(EXPERIMENT.read_text())
    return path


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
    job = prepare(QUICKSTART, scale="tiny", assignments=[], resources=profile, store=Store(tmp_path))
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


class Starting:
    """Ray's client, of a cluster whose agents come up after some asking."""

    answers: list[str]

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.started: list[dict[str, Any]] = []

    def submit_job(self, **job: Any) -> None:
        if self.answers:
            raise RuntimeError(self.answers.pop(0))
        self.started.append(job)


@pytest.mark.parametrize(("answers", "taken"), [(["No available agent to submit job"] * 3, True), (["bad zip"], False)])
def test_a_cluster_that_is_only_just_up_is_given_time_and_another_refusal_is_told(
    monkeypatch, tmp_path, answers, taken
):
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", Starting)
    monkeypatch.setattr("cong.submit.jobs._POLL_SECONDS", 0.0)
    monkeypatch.setattr(Starting, "answers", list(answers), raising=False)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    cluster = dashboard.Cluster(
        address="http://head:8265", headers={}, ray="2.60.0", python="3.11.7", capacity=Capacity(nodes=()), here=True
    )
    jobs = Jobs(cluster)
    packed = Packed(
        root=tmp_path, archive=b"", files=1, left_out=(), experiment="numbers.py", profile="cong/profiles/laptop.toml"
    )
    submission = Submission(name="numbers", packed=packed, options=(), store="/shared", environment={})
    if taken:
        assert jobs.submit(submission).startswith("cong-numbers-")
    else:
        with pytest.raises(UserError, match="did not take the job: bad zip"):
            jobs.submit(submission)
