"""What a whole machine does to a run: the head of the cluster ends, the disk of the store is full."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import ROOT, cong, start
from toy import Number, run, runs

from cong.graph.plan import make_plan
from cong.graph.runner import StageFailed
from cong.graph.stage import Context, Stage
from cong.graph.store import Store
from cong.tracking import database

HELD = '''"""A stage that waits as long as there is a file `hold` beside the store, after one that does not"""
import time
from dataclasses import dataclass

from cong.experiment import Cell
from cong.graph.stage import Context, Stage


@dataclass(frozen=True, kw_only=True)
class Held(Stage):
    source: Stage | None = None

    def run(self, ctx: Context) -> None:
        while self.source and (ctx.out.parents[2] / "hold").exists():
            time.sleep(0.1)
        ctx.summary(number=1.0)


def cells(scale):
    return [Cell(stage=Held(source=Held()), axes={"method": "held"})]
'''


@dataclass(frozen=True, kw_only=True)
class Heavy(Stage):
    """Writes three megabytes."""

    def run(self, ctx: Context) -> None:
        (ctx.out / "heavy.bin").write_bytes(os.urandom(3 << 20))
        ctx.summary(number=3.0)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes, which can be made larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a file system cannot be mounted here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_fails_the_stage_that_writes_and_a_second_run_goes_on(small_disk):
    store = Store(small_disk / "runs")
    store.prepare()
    small, heavy = Number(value=1), Heavy()
    with pytest.raises(StageFailed, match="No space left on device"):
        run(store, small, heavy)
    assert store.is_complete(small)
    assert make_plan({"heavy": heavy}, store).todo == (heavy,)
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    run(store, small, heavy)
    assert store.is_complete(heavy)
    assert (store.directory(heavy) / "heavy.bin").stat().st_size == 3 << 20
    assert runs(store) == 1


def test_a_disk_that_is_full_from_the_start_is_one_line(small_disk):
    (small_disk / "ballast").write_bytes(bytes(2 << 20))
    code, output = cong("run", str(ROOT / "tests" / "sweeping.py"), "--store", str(small_disk / "runs"), env={})
    assert code == 2
    assert output.count("\n") == 1
    assert "No space left on device" in output


class Head:
    """`ray start --head` on a port of its own, in a session of its own."""

    def __init__(self, directory):
        self.directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.env = {"RAY_AUTH_MODE": "disabled", "RAY_gcs_rpc_server_reconnect_timeout_s": "3",
                    "RAY_TMPDIR": str(directory)}  # fmt: skip

    def start(self):
        command = [Path(sys.executable).parent / "ray", "start", "--head", "--block", "--port", str(self.port),
                   "--num-cpus", "2", "--include-dashboard", "false", "--disable-usage-stats"]  # fmt: skip
        log = (self.directory / "head.log").open("a")
        self.process = subprocess.Popen(
            command, env=os.environ | self.env, stdout=log, stderr=log, start_new_session=True
        )
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError((self.directory / "head.log").read_text())

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def head():
    # Ray's sockets lie in this directory, and the path of a socket is short.
    directory = Path(tempfile.mkdtemp(dir="/tmp", prefix="cong"))
    made = Head(directory)
    made.start()
    yield made
    made.kill()
    shutil.rmtree(directory)


def test_a_run_whose_cluster_lost_its_head_ends_and_goes_on_with_the_next_head(head, tmp_path, empty_database):
    experiment, hold = tmp_path / "held.py", tmp_path / "hold"
    experiment.write_text(HELD)
    hold.touch()
    store = Store(tmp_path / "runs")
    store.prepare()
    (store.root / database.NAME).write_bytes(empty_database)
    command = ["run", str(experiment), "--address", head.address, "--store", str(store.root)]
    first = start(*command, env=head.env)
    end = time.monotonic() + 120
    while not list(store.root.glob("Held/*/.lease.json")) or not list(store.root.glob("Held/*/_SUCCESS")):
        assert first.poll() is None, first.output()
        assert time.monotonic() < end, first.output()
        time.sleep(0.1)
    made = next(store.root.glob("Held/*/_SUCCESS")).stat().st_mtime_ns
    head.kill()
    assert first.wait(timeout=120) != 0, first.output()
    hold.unlink()
    head.start()
    code, output = cong(*command, env=head.env)
    assert code == 0, output
    assert "1 stages computed, 1 found in the store" in output
    assert min(path.stat().st_mtime_ns for path in store.root.glob("Held/*/_SUCCESS")) == made
