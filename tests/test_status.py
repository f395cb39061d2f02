"""What a store tells of its runs: while they go on, and after every kind of end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import EXPERIMENT, ROOT, cong
from commands import start as start_command
from forked import Forked

from cong.errors import UserError
from cong.graph.resources import load_profile
from cong.graph.store import Store, lease
from cong.run import records as runs
from cong.run import status
from cong.run.job import Job, prepare
from cong.run.records import recorded

INLINE = "[cluster]\nray = false\n[decoding]\nactors = 0\n"


@pytest.fixture
def profile(tmp_path: Path) -> str:
    (tmp_path / "inline.toml").write_text(INLINE)
    return str(tmp_path / "inline.toml")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def job(root: Path, profile: str, *settings: str) -> Job:
    store = Store(root)
    store.prepare()
    return prepare(EXPERIMENT, scale="tiny", assignments=list(settings), resources=load_profile(profile), store=store)


def start(root: Path, profile: str) -> Forked:
    (root.parent / "hold").touch()
    process = start_command("run", str(EXPERIMENT), "--store", str(root), "--profile", profile, env={})
    while not list(root.parent.glob("began-*")):
        assert process.poll() is None, process.output()
        time.sleep(0.05)
    return process


def test_a_run_is_seen_while_it_goes_on_after_kill_9_and_after_a_failure(root, profile):
    process = start(root, profile)
    _, while_running = cong("status", "--store", str(root), env={})
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, killed = cong("status", "--store", str(root), env={})
    (root.parent / "hold").unlink()
    arguments = ["run", str(EXPERIMENT), "--store", str(root), "--profile", profile, "--set", "values=1,-2"]
    failed, _ = cong(*arguments, env={})
    _, shown = cong("status", "numbers_experiment", "--store", str(root), env={})
    assert f"running: process {process.pid} on" in while_running
    assert "of 1200 steps" in while_running.partition("running now")[2]
    assert f"died: process {process.pid} on" in killed
    assert "running" not in killed
    assert failed == 1
    assert "failed: 1 stage;" in shown
    assert "RuntimeError: a number is negative and that is explained here" in shown
    rows = {line.split()[0]: line.split()[1] for line in shown.splitlines() if line.startswith("value=")}
    assert rows == {"value=1": "finished", "value=-2": "failed"}
    assert "set: values=1,-2" in shown


def test_two_runs_of_one_experiment_at_once_are_both_seen_and_leave_one_record(root, profile):
    first, second = job(root, profile), job(root, profile, "values=3")
    with recorded(first):
        with recorded(second):
            both = status.runs(root)
            assert [len(run.record["cells"]) for run in both] == [2, 1]
            assert all(run.lives for run in both)
        assert [run.state.split(":")[0] for run in status.runs(root)] == ["running", "finished"]
    with recorded(first):
        assert len(list((root / runs.RUNS / first.name).glob("*/run.json"))) == 1


def test_how_a_run_ended_is_written_down(root, profile):
    made = job(root, profile)
    with recorded(made):
        pass
    assert [run.state for run in status.runs(root)] == ["finished"]
    for raised, text in (
        (UserError("no room"), "failed: no room"),
        (ValueError("one\ntwo"), "failed: ValueError: one two"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(15), "interrupted"),
    ):
        with pytest.raises(type(raised)), recorded(made):
            raise raised
        assert [run.state for run in status.runs(root)] == [text]


def test_a_run_on_another_host_is_suspect_when_its_heartbeat_stands_still(root, profile, monkeypatch):
    with recorded(job(root, profile)):
        directory = status.runs(root)[0].directory
        monkeypatch.setattr(lease, "_host", lambda: "elsewhere/1/2")
        assert "no sign of life" not in status.runs(root)[0].state
        old = time.time() - 600
        os.utime(directory / ".lease.json", (old, old))
        assert status.runs(root)[0].state.endswith("no sign of life for 10 min")
        monkeypatch.undo()


def test_the_record_of_a_submitted_run_names_its_job(root, profile, monkeypatch):
    monkeypatch.setenv(runs.JOB_ID, "cong-numbers-1")
    with recorded(job(root, profile)):
        assert status.runs(root)[0].state.endswith("job cong-numbers-1")


def test_an_experiment_without_runs_is_one_clear_line(root, profile):
    with recorded(job(root, profile)):
        pass
    code, said = cong("status", "other", "--store", str(root), env={})
    assert code == 2
    assert said == f"error: no run of an experiment 'other' in {root}; there are numbers_experiment-tiny\n"


def test_the_status_imports_neither_torch_nor_ray(root, profile):
    with recorded(job(root, profile)):
        code = (
            "import sys; from cong.cli.app import app; "
            f"app(['status', '--store', {str(root)!r}], standalone_mode=False); "
            "print([name for name in ('torch', 'ray', 'transformers', 'mlflow', 'numpy') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "numbers_experiment-tiny" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
