"""The tracker on a real MLflow server that goes away, and comes back or does not."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from toy import INLINE, Number, Sum

from cong.experiment import Cell, collect
from cong.graph.plan import make_plan
from cong.graph.runner import Runner
from cong.graph.store import Store
from cong.tracking import PARENT, Tracker, outbox, tracker, tracking_uri, ways_to_see
from cong.tracking.server import connect, open_experiment


class Server:
    """`mlflow server` on a port and database of its own."""

    def __init__(self, directory):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.directory, self.process = directory, None

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        if self.process is not None:
            return
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1",
                   "--backend-store-uri", f"sqlite:///{self.directory}/mlflow.db",
                   "--artifacts-destination", str(self.directory / "artifacts")]  # fmt: skip
        # Without jobs such as judging traces, for which it starts a dozen processes.
        env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        # In a session of its own, so that its workers end with it.
        self.process = subprocess.Popen(
            command, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        end = time.monotonic() + 90
        while time.monotonic() < end:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                if answer.status == 200:
                    return
            time.sleep(0.2)
        raise TimeoutError("the MLflow server did not start")

    def stop(self):
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory, empty_database):
    server = Server(tmp_path_factory.mktemp("mlflow"))
    (server.directory / "mlflow.db").write_bytes(empty_database)
    yield server
    server.stop()


@pytest.fixture
def toy(tmp_path, monkeypatch, server):
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0.2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://alice:hunter2@127.0.0.1:{server.port}")
    store = Store(tmp_path / "runs")
    store.prepare()
    parts = Number(value=1), Number(value=2)
    cells = [Cell(stage=Sum(parts=parts), axes={"method": "sum"}), Cell(stage=parts[0], axes={"method": "one"})]
    return store, cells, make_plan({cell.name: cell.stage for cell in cells}, store)


def run(toy, name, *, between):
    """Track a run of the toy; `between` is called once its first stage has ended."""
    store, cells, plan = toy
    tracked = Tracker(store=store, cells=cells, name=name, params={"scale": "toy"})

    class Disturber:
        def __init__(self):
            self.begun = False

        def started(self, stage): ...
        def failed(self, stage, error): ...
        def tick(self, running): ...

        def finished(self, stage, outcome):
            if not self.begun:
                self.begun = True
                between()

    Runner(store=store, resources=INLINE, observers=(Disturber(), tracked), tracking_run=tracked.run_id).run(plan)
    return tracked


def runs_of(server, name):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def test_a_server_that_comes_back_is_sent_all_that_waited(toy, server, capsys):
    store, cells, plan = toy
    server.start()
    tracked = run(toy, "back", between=server.stop)
    assert "the run continues, and what is to be tracked waits" in capsys.readouterr().err
    server.start()
    tracked.close(collect(cells, store))
    assert "MLflow answers again" in capsys.readouterr().err
    runs = runs_of(server, "back")
    stages = [found for found in runs if "cong.stage" in found.data.tags]
    assert sorted(found.data.tags["cong.fingerprint"] for found in stages) == sorted(s.fingerprint for s in plan.stages)
    assert {found.info.status for found in runs} == {"FINISHED"}
    assert {found.data.params["method"]: found.data.metrics["number"] for found in runs
            if "method" in found.data.params} == {"sum": 3.0, "one": 1.0}  # fmt: skip
    assert sum(PARENT not in found.data.tags for found in runs) == 1
    page = f"/#/experiments/{runs[0].info.experiment_id}?workflowType=machine_learning"
    assert ways_to_see(store, name="back") == [f"{server.uri}{page}"]


def test_a_database_is_shown_by_a_command_and_a_page(toy, monkeypatch):
    store, _, _ = toy
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    uri = tracking_uri(store)
    number = open_experiment(connect(uri), uri=uri, store=store, name="here")
    command, page = ways_to_see(store, name="here")
    assert command.endswith(f"mlflow ui --backend-store-uri sqlite:///{store.root}/mlflow.db")
    assert page == f"http://127.0.0.1:5000/#/experiments/{number}?workflowType=machine_learning"


def test_a_server_that_stays_away_costs_two_lines_and_no_result(toy, server, capsys, monkeypatch):
    monkeypatch.setattr(tracker, "PATIENCE_SECONDS", 1.0)
    store, cells, _ = toy
    server.start()
    tracked = run(toy, "gone", between=server.stop)
    tracked.close(collect(cells, store))
    warnings = capsys.readouterr().err
    assert warnings.count(f"warning: MLflow at http://127.0.0.1:{server.port} does not answer") == 1
    assert warnings.count("all results are in the store") == 1
    assert "hunter2" not in warnings
    assert ways_to_see(store, name="gone") == [f"{server.uri}/#"]
    assert [result.values["number"] for result in collect(cells, store)] == [3.0, 1.0]
