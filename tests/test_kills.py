"""kill -9: whatever dies, the next run completes, repeats no finished stage, and yields what it would have anyway."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from commands import ROOT, start
from forked import Forked
from toy import INLINE

from cong.data import RESPONSES, read_rows
from cong.graph.journal import read_metrics
from cong.graph.plan import make_plan
from cong.graph.runner import Runner
from cong.graph.stage import Stage
from cong.graph.store import RECORD, SUCCESS, Store
from cong.run.job import Job, prepare
from cong.tracking import database

EXPERIMENT = ROOT / "tests" / "small.py"
KINDS = (
    "SyntheticPrompts", "BuildTokenizer", "Pretrain", "Generate", "Score", "BestAgainstWorst", "ReferenceLogprobs",
    "DPO", "ContrastiveGenerate", "SFT", "PreferencePairs", "Evaluate",
)  # fmt: skip
LASTING = {"Pretrain", "Generate", "ReferenceLogprobs", "DPO", "ContrastiveGenerate", "SFT"}
METRICS = "metrics.jsonl"
ON_RAY = {"Generate", "DPO"}
"""Killed with a Ray below the driver; a Ray costs seconds, and the others lose their driver's own process."""
PROFILE = """
[cluster]
cpus = 2
[decoding]
actors = 0
[training]
micro_tokens = 4096
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
micro_tokens = 80
checkpoint_seconds = 0.0
"""


def test_a_driver_killed_inside_every_kind_of_stage_loses_nothing(small_run, tmp_path, empty_database):
    store, on_ray = tmp_path / "store", _profile(tmp_path, PROFILE)
    store.mkdir()
    (store / database.NAME).write_bytes(empty_database)
    alone = _profile(tmp_path, PROFILE.replace("cpus = 2", "ray = false"), name="alone")
    whole = {_place(stage) for stage in small_run.plan.stages}
    finished: dict[str, float] = {}
    inside = set()
    for kind in KINDS:
        done = {name for name in finished if name.startswith(f"{kind}/")}
        # A kind that was finished beside an earlier one is recomputed, so that there is something to kill.
        again = done == {name for name in whole if name.startswith(f"{kind}/")}
        known = set(finished)
        finished = {name: when for name, when in finished.items() if not (again and name in done)}
        where = on_ray if kind in ON_RAY else alone
        process = _start(store, where, *(("--force", kind) if again else ()))
        _wait_until(lambda kind=kind, known=known: _begun(store, kind) or _more(store, kind, known), process)
        inside |= {kind} if _begun(store, kind) else set()
        _kill_driver(process)
        now = _finished(store)
        assert finished.items() <= now.items(), f"a finished stage was made again after the kill inside {kind}"
        finished = now
    last = _start(store, alone)
    assert last.wait(timeout=400) == 0, last.output()
    assert finished.items() <= _finished(store).items()
    assert set(_finished(store)) == whole
    _same_outcome(store, small_run)
    # The shortest stages can be over between two looks; the others were really killed inside.
    assert inside >= LASTING


def test_a_killed_train_worker_and_a_killed_data_actor_are_replaced(small_run, tmp_path):
    settings = ["weak=true", "batch=8"]
    candidates, trained, stages = _weak(small_run.store, settings)
    # What leads to the two stages is in the store; both are to be computed on the cluster, and one more time without.
    ours, theirs = (_copy(small_run.store, tmp_path / name, stages, but=candidates) for name in ("ours", "theirs"))
    inline = INLINE.changed(micro_tokens=512)
    Runner(store=theirs, resources=inline).run(make_plan({"trained": trained, "decoded": candidates}, theirs))
    process = _start(ours.root, _profile(tmp_path, CLUSTER), *(part for text in settings for part in ("--set", text)))
    killed = [
        _kill_one(process, "MapWorker", when=lambda: _parts(ours.directory(candidates))),
        _kill_one(process, "RayTrainWorker", when=lambda: _checkpoints(ours.directory(trained))),
    ]
    assert all(killed)
    assert process.wait(timeout=500) == 0, process.output()
    # Decoded text is the same; what was trained with other workers agrees in its losses.
    assert _responses(ours, candidates) == _responses(theirs, candidates)
    assert 1 <= ours.record(trained)["results"]["resumed_at_step"] < len(_losses(theirs, trained))
    assert _losses(ours, trained) == pytest.approx(_losses(theirs, trained), abs=1e-4)


def _weak(store: Store, settings: list[str]) -> tuple[Stage, Stage, list[Stage]]:
    """Return further candidates of the weak model, its alignment, and the stages below the two."""
    job = prepare(EXPERIMENT, scale="tiny", assignments=settings, resources=INLINE, store=store)
    decoded, trained = (cell.stage for cell in job.cells)
    return decoded, trained, [stage for stage in job.plan.stages if stage not in (decoded, trained)]


def _copy(store: Store, target: Path, stages: list[Stage], *, but: Stage) -> Store:
    copied = Store(target / "store")
    copied.prepare()
    for stage in stages:
        shutil.copytree(store.directory(stage), copied.directory(stage))
    assert not copied.is_complete(but)
    return copied


def _start(store: Path, profile: Path, *more: str) -> Forked:
    where = ["--store", str(store), "--profile", str(profile)]
    return start("run", str(EXPERIMENT), *where, *more, env={})


def _place(stage: Stage) -> str:
    return f"{stage.name}/{stage.slug}"


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


def _kill_driver(process: Forked) -> None:
    # Ray's own reaper ends what the driver started; its two agents notice some minutes later and disturb nobody.
    below = [child for child in _children(process) if "Agent" not in " ".join(child.cmdline())]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


def _kill_one(process: Forked, title: str, *, when: Callable[[], object]) -> bool:
    found: list[psutil.Process] = []

    def ready() -> bool:
        # To look for processes takes longer than to look at files.
        found[:] = [child for child in _children(process) if title in " ".join(child.cmdline())] if when() else []
        return bool(found)

    _wait_until(ready, process)
    os.kill(found[-1].pid, signal.SIGKILL)
    return True


def _children(process: Forked) -> Iterator[psutil.Process]:
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE and child.cmdline():
                yield child
        except psutil.NoSuchProcess:
            continue


def _parts(decoded: Path) -> list[Path]:
    return list(decoded.glob(".scratch/parts/part-*"))


def _checkpoints(trained: Path) -> list[Path]:
    return list(trained.glob("checkpoints/*/COMPLETE"))


def _wait_until(condition: Callable[[], bool], process: Forked, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before the moment to kill had come"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def _same_outcome(ours: Path, undisturbed: Job) -> None:
    for stage in undisturbed.plan.stages:
        mine, theirs = ours / _place(stage), undisturbed.store.directory(stage)
        if (theirs / RESPONSES).exists():
            assert read_rows(mine / RESPONSES) == read_rows(theirs / RESPONSES), theirs.name
        if stage.name in ("SFT", "DPO", "Pretrain"):
            assert _curve(mine / METRICS) == pytest.approx(_curve(theirs / METRICS), abs=1e-4)


def _curve(path: Path) -> dict[int, float]:
    points = {point["step"]: point["loss"] for point in read_metrics(path)[0] if "loss" in point}
    assert points
    return points


def _losses(store: Store, trained: Stage) -> dict[int, float]:
    return _curve(store.directory(trained) / METRICS)


def _responses(store: Store, decoded: Stage) -> list[str]:
    return [row["response"] for row in read_rows(store.directory(decoded) / RESPONSES)]
