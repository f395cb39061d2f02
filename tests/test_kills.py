"""kill -9: whatever dies, the next run completes, repeats no finished stage, and yields what it would have anyway."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cong.data import RESPONSES, read_rows
from cong.graph.journal import read_metrics
from cong.graph.store import RECORD, SUCCESS

ROOT = Path(__file__).resolve().parents[1]
KINDS = (
    "SyntheticPrompts", "BuildTokenizer", "Pretrain", "Generate", "Score", "BestAgainstWorst", "ReferenceLogprobs",
    "DPO", "ContrastiveGenerate", "SFT", "PreferencePairs", "Evaluate",
)  # fmt: skip
LASTING = {"Pretrain", "Generate", "ReferenceLogprobs", "DPO", "ContrastiveGenerate", "SFT"}
PROFILE = """
[cluster]
cpus = 2
[decoding]
actors = 0
[training]
micro_batch = 16
checkpoint_seconds = 0.3
"""
CLUSTER = """
[cluster]
cpus = 2
[decoding]
actors = 2
slots = 2
[training]
workers = 2
deepspeed = "zero2"
micro_batch = 8
checkpoint_seconds = 0.3
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run that nobody disturbed."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    process = _start(store, _profile(store.parent, PROFILE))
    assert process.wait(timeout=400) == 0, (store.parent / "run.log").read_text()
    return store


def test_a_driver_killed_inside_every_kind_of_stage_loses_nothing(undisturbed, tmp_path):
    store, profile = tmp_path / "store", _profile(tmp_path, PROFILE)
    # The short ones die in the driver's own process: starting a Ray takes longer than all of them.
    alone = _profile(tmp_path, PROFILE.replace("cpus = 2", "ray = false"), name="alone")
    finished: dict[str, float] = {}
    inside = set()
    for kind in KINDS:
        done = {name for name in finished if name.startswith(f"{kind}/")}
        # A kind that was finished beside an earlier one is made anew, so that there is something to kill.
        again = done == {name for name in _finished(undisturbed) if name.startswith(f"{kind}/")}
        known = set(finished)
        finished = {name: when for name, when in finished.items() if not (again and name in done)}
        where = profile if kind in LASTING else alone
        process = _start(store, where, *(("--force", kind) if again else ()))
        _wait_until(lambda kind=kind, known=known: _begun(store, kind) or _more(store, kind, known), process)
        inside |= {kind} if _begun(store, kind) else set()
        _kill_driver(process)
        now = _finished(store)
        assert finished.items() <= now.items(), f"a finished stage was made again after the kill inside {kind}"
        finished = now
    assert _start(store, profile).wait(timeout=400) == 0, (tmp_path / "run.log").read_text()
    assert finished.items() <= _finished(store).items()
    _same_outcome(store, undisturbed)
    # The shortest stages can be over between two looks; the others were really killed inside.
    assert inside >= LASTING


def test_a_killed_train_worker_and_a_killed_data_actor_are_replaced(undisturbed, tmp_path):
    store, profile = tmp_path / "store", _profile(tmp_path, CLUSTER)
    process = _start(store, profile, "--set", "weak=true")
    killed = [
        _kill_one(process, "MapWorker", when=lambda: _parts(store)),
        _kill_one(process, "RayTrainWorker", when=lambda: list(store.glob("*/*/checkpoints/*/COMPLETE"))),
    ]
    assert all(killed)
    assert process.wait(timeout=500) == 0, (tmp_path / "run.log").read_text()
    # Text decoded before any of this training is the same; what was trained with other workers agrees in its losses.
    assert _candidates(store) == _candidates(undisturbed)
    ours, theirs = (_losses(root, "DPO", "beta=0.1") for root in (store, undisturbed))
    assert ours == pytest.approx(theirs, abs=1e-4)


def _start(store: Path, profile: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "cong.cli", "run", str(ROOT / "tests" / "small.py"), "--store", str(store)]
    settings = ["--profile", str(profile), "--set", "steps=120", "--set", "prompts=96"]
    log = (store.parent / "run.log").open("a")
    return subprocess.Popen([*command, *settings, *more], stdout=log, stderr=log, cwd=ROOT, start_new_session=True)


def _profile(directory: Path, text: str, *, name: str = "test") -> Path:
    path = directory / f"{name}.toml"
    path.write_text(text)
    return path


def _begun(store: Path, kind: str) -> bool:
    return any((store / kind).glob("*/.lease.json"))


def _more(store: Path, kind: str, known: set[str]) -> bool:
    finished = {str(path.parent.relative_to(store)) for path in (store / kind).glob(f"*/{SUCCESS}")}
    return bool(finished - known)


def _finished(store: Path) -> dict[str, float]:
    records = (path.with_name(RECORD) for path in store.glob(f"[A-Z]*/*/{SUCCESS}"))
    return {str(path.parent.relative_to(store)): json.loads(path.read_text())["started"] for path in records}


def _kill_driver(process: subprocess.Popen) -> None:
    # Ray's own reaper ends what the driver started; its two agents notice some minutes later and disturb nobody.
    below = [child for child in _children(process) if "Agent" not in " ".join(child.cmdline())]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


def _kill_one(process: subprocess.Popen, title: str, *, when: Callable[[], object]) -> bool:
    found: list[psutil.Process] = []

    def ready() -> bool:
        found[:] = [child for child in _children(process) if title in " ".join(child.cmdline())]
        return bool(found and when())

    _wait_until(ready, process)
    os.kill(found[-1].pid, signal.SIGKILL)
    return True


def _children(process: subprocess.Popen) -> Iterator[psutil.Process]:
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE and child.cmdline():
                yield child
        except psutil.NoSuchProcess:
            continue


def _parts(store: Path) -> list[Path]:
    return list(store.glob("Generate/T=0.8*/.scratch/parts/part-*"))


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before the moment to kill had come"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def _same_outcome(ours: Path, theirs: Path) -> None:
    assert set(_finished(ours)) == set(_finished(theirs))
    for path in sorted(theirs.glob(f"*/*/{RESPONSES}")):
        assert read_rows(ours / path.relative_to(theirs)) == read_rows(path), path.parent.name
    for kind in ("SFT", "DPO", "Pretrain"):
        for path in sorted((theirs / kind).glob("*/metrics.jsonl")):
            mine, other = (_curve(file) for file in (ours / path.relative_to(theirs), path))
            assert mine == pytest.approx(other, abs=1e-4)


def _curve(path: Path) -> dict[int, float]:
    return {point["step"]: point["loss"] for point in read_metrics(path)[0] if "loss" in point}


def _losses(store: Path, kind: str, label: str) -> dict[int, float]:
    return _curve(next((store / kind).glob(f"{label}*/metrics.jsonl")))


def _candidates(store: Path) -> list[str]:
    path = next(store.glob(f"Generate/T=0.8,n=5*/{RESPONSES}"))
    return [row["response"] for row in read_rows(path)]
