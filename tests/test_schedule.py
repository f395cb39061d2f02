"""Stages that wait for capacity, and stages whose process is ended, without any Ray."""

import sys
import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from toy import Number, Sum

from cong.graph import runner
from cong.graph.demand import Capacity, Demand
from cong.graph.execute import execute
from cong.graph.plan import make_plan
from cong.graph.resources import Resources
from cong.graph.runner import Runner, StageFailed, _Schedule, room

GROWING = Capacity(nodes=(Demand(cpus=2),), grows=True)
RAY = Resources(name="ray").changed(cpus=2)


class RayTaskError(Exception):
    def __init__(self, cause):
        self.cause = cause


ERRORS = {name: type(name, (Exception,), {}) for name in
          ("OutOfMemoryError", "NodeDiedError", "TaskUnschedulableError", "WorkerCrashedError")}  # fmt: skip


@pytest.fixture(autouse=True)
def errors_of_ray(monkeypatch):
    monkeypatch.setattr(runner, "REST_SECONDS", 0.01)
    monkeypatch.setitem(sys.modules, "ray.exceptions", SimpleNamespace(RayTaskError=RayTaskError, **ERRORS))


def schedule(store, stages, start, capacity=GROWING):
    plan = make_plan({str(number): stage for number, stage in enumerate(stages)}, store)
    return _Schedule(runner=Runner(store=store, resources=RAY), plan=plan, start=start, capacity=room(capacity))


class Cluster:
    """Takes stages, and ends each as often as it is told to before it lets it run."""

    def __init__(self, ends=()):
        self.ends = {stage.fingerprint: list(errors) for stage, errors in ends}
        self.started: list[str] = []

    def __call__(self, task):
        self.started.append(task.stage.fingerprint)
        future: Future = Future()
        if errors := self.ends.get(task.stage.fingerprint):
            future.set_exception(errors.pop(0))
        else:
            future.set_result(execute(task))
        return future


def test_a_thousand_ready_stages_wait_for_nodes_without_a_thread_each(store):
    asked, threads = [], threading.active_count()

    def start(task):
        asked.append(task)
        if len(asked) == 1000:
            assert threading.active_count() <= threads + 2
            for _, future in futures:
                future.set_result("made")
        future: Future = Future()
        futures.append((task, future))
        if len(asked) == 1000:
            future.set_result("made")
        return future

    futures: list = []
    schedule(store, [Number(value=value) for value in range(1000)], start).run()
    assert len(asked) == 1000


@pytest.mark.parametrize(("name", "tries"), [("OutOfMemoryError", 3), ("WorkerCrashedError", 3)])
def test_a_stage_whose_process_is_always_ended_is_given_up_after_a_few_tries(store, name, tries):
    big, small = Number(value=1), Number(value=2)
    cluster = Cluster([(big, [ERRORS[name]("killed") for _ in range(9)])])
    with pytest.raises(StageFailed) as failed:
        schedule(store, [big, small], cluster).run()
    assert cluster.started.count(big.fingerprint) == tries
    assert store.is_complete(small)
    assert ("ran out of memory" in str(failed.value)) == (name == "OutOfMemoryError")


@pytest.mark.parametrize("name", ["OutOfMemoryError", "WorkerCrashedError", "NodeDiedError", "TaskUnschedulableError"])
def test_a_stage_whose_process_is_ended_once_or_twice_goes_on(store, name):
    stage = Number(value=1)
    schedule(store, [Sum(parts=(stage,))], Cluster([(stage, [ERRORS[name]("gone")] * 2)])).run()
    assert store.is_complete(Sum(parts=(stage,)))


def test_nodes_that_go_again_and_again_are_no_fault_of_a_stage(store):
    stage = Number(value=1)
    schedule(store, [stage], Cluster([(stage, [ERRORS["NodeDiedError"]("preempted")] * 12)])).run()
    assert store.is_complete(stage)


def test_memory_that_ran_out_inside_a_stage_counts_as_well(store):
    stage = Number(value=1)
    cluster = Cluster([(stage, [RayTaskError(ERRORS["OutOfMemoryError"]("an actor")) for _ in range(9)])])
    with pytest.raises(StageFailed, match="MemoryError: its node ran out of memory"):
        schedule(store, [stage], cluster).run()
    assert len(cluster.started) == 3


def test_an_error_that_a_stage_raises_is_not_tried_again(store):
    stage = Number(value=1)
    cluster = Cluster([(stage, [RayTaskError(ValueError("wrong"))])])
    with pytest.raises(StageFailed, match="ValueError: wrong"):
        schedule(store, [stage], cluster).run()
    assert len(cluster.started) == 1


def test_stages_that_ran_out_of_memory_are_tried_again_one_after_the_other(store, monkeypatch):
    monkeypatch.setattr(runner, "TICK", 0.01)
    stages = [Number(value=value) for value in range(3)]
    open_now: dict[str, Future] = {}
    most = []

    def start(task):
        future: Future = Future()
        if task.stage.fingerprint not in seen:
            seen.add(task.stage.fingerprint)
            future.set_exception(ERRORS["OutOfMemoryError"]("killed"))
            return future
        open_now[task.stage.fingerprint] = future
        most.append(len(open_now))
        threading.Timer(0.05, lambda: (open_now.pop(task.stage.fingerprint), future.set_result("made"))).start()
        return future

    seen: set[str] = set()
    schedule(store, stages, start).run()
    assert most == [1, 1, 1]
