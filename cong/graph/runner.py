"""Runs the stages of a plan, several at a time as far as the resources go, and tells observers what happens.

With Ray a stage is a Ray task that may start Ray Data actors or Ray Train workers; without, it runs in this process.
A stage whose process dies is tried again and continues where it stopped; one that raises fails, and what does not need
it is still computed. No thread waits for a stage: an autoscaling cluster is asked for thousands at a time.
"""

import contextlib
import functools
import gc
import math
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

from cong.errors import UserError
from cong.graph.demand import Capacity, Demand
from cong.graph.execute import LOG, Assignment, execute, output_to, provenance
from cong.graph.journal import write_failure
from cong.graph.naming import definition
from cong.graph.plan import Plan
from cong.graph.resources import Resources
from cong.graph.stage import Stage
from cong.graph.store import StageStore

TICK = 1.0
_DEATHS = {"memory": 2, "process": 2, "node": 20}
"""How often a stage is tried again, by what was lost; a node that goes, as cheap ones do, is no fault of its stages."""
REST_SECONDS = 5.0
"""What ended for want of memory is gone by then."""
_MEMORY = """\
its node ran out of memory, and Ray ended its process, every time it was tried: use a smaller micro_tokens or slots, \
fewer actors or workers at a time, or nodes with more memory"""
_PLACED_AT_ONCE = 16

Start = Callable[[Assignment], "Future[str]"]


class Observer(Protocol):
    """Someone who wants to know: the terminal, the tracker."""

    def started(self, stage: Stage) -> None:
        """A stage is given to a process."""

    def finished(self, stage: Stage, outcome: str) -> None:
        """A stage ended as `made` or `hit`."""

    def failed(self, stage: Stage, error: BaseException) -> None:
        """A stage raised."""

    def tick(self, running: list[Stage]) -> None:
        """About a second has passed."""


class StageFailed(RuntimeError):
    """At least one stage failed; `failures` holds each with its error."""

    def __init__(self, failures: list[tuple[Stage, BaseException]]) -> None:
        self.failures = failures
        super().__init__("; ".join(f"{stage.title}: {first_line(error)}" for stage, error in failures))


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Executes plans. `observers` are called from one thread."""

    store: StageStore
    resources: Resources
    observers: tuple[Observer, ...] = ()
    tracking_run: str | None = None
    """The tracker's run that the stages' records name."""
    share: Demand | None = None
    """What the stages that run at the same time may occupy together; None is all there is."""

    def run(self, plan: Plan) -> None:
        """Compute what is to run; raise `StageFailed` at the end when something failed."""
        if not plan.todo:
            return
        with executor(self.resources) as (start, capacity):
            check_capacity(plan, self.resources, capacity)
            _Schedule(runner=self, plan=plan, start=start, capacity=self.share or room(capacity)).run()


class _Schedule:
    def __init__(self, *, runner: Runner, plan: Plan, start: Start, capacity: Demand) -> None:
        self.runner, self.plan, self.start = runner, plan, start
        self.free = capacity
        self.waiting = list(plan.todo)
        self.running: dict[Future[str], Stage] = {}
        self.tasks: dict[str, Assignment] = {}
        self.deaths: Counter[tuple[str, str]] = Counter()
        self.starved: list[Assignment] = []
        """Stages that ran out of memory: they are tried again one after the other, after a rest."""
        self.rest_until = 0.0
        self.unfinished = {stage.fingerprint for stage in plan.todo}
        self.failures: list[tuple[Stage, BaseException]] = []

    def run(self) -> None:
        # After an interrupt nobody waits for the running stages: they end with the connection to Ray.
        while self.waiting or self.running or self.starved:
            self._start_what_fits()
            self._start_what_starved()
            if not (self.running or self.starved):
                break
            self._collect()
        if self.failures:
            raise StageFailed(self.failures)

    def _start_what_fits(self) -> None:
        for stage in list(self.waiting):
            demand = stage.demand(self.runner.resources)
            ready = not any(item.fingerprint in self.unfinished for item in stage.inputs)
            if ready and demand.fits(self.free):
                self.waiting.remove(stage)
                self.free = self.free - demand
                self.tasks[stage.fingerprint] = self._assignment(stage)
                self.running[self.start(self.tasks[stage.fingerprint])] = stage

    def _start_what_starved(self) -> None:
        alone = any(self.deaths[stage.fingerprint, "memory"] for stage in self.running.values())
        if self.starved and not alone and time.monotonic() >= self.rest_until:
            task = self.starved.pop(0)
            self.running[self.start(task)] = task.stage

    def _assignment(self, stage: Stage) -> Assignment:
        for observer in self.runner.observers:
            observer.started(stage)
        return Assignment(
            stage=stage,
            store=self.runner.store,
            resources=self.runner.resources,
            provenance=provenance(),
            tracking_run=self.runner.tracking_run,
            forced=stage.fingerprint in self.plan.forced,
            maker=definition(type(stage)),
        )

    def _collect(self) -> None:
        if not self.running:
            time.sleep(min(TICK, max(self.rest_until - time.monotonic(), 0.0)))
        done, _ = wait(self.running, timeout=TICK, return_when=FIRST_COMPLETED)
        for future in done:
            self._settle(self.running.pop(future), future)
        for observer in self.runner.observers:
            observer.tick(list(self.running.values()))

    def _settle(self, stage: Stage, future: Future[str]) -> None:
        error, lost = _outcome(future)
        if lost is not None:
            self.deaths[stage.fingerprint, lost] += 1
            if self.deaths[stage.fingerprint, lost] <= _DEATHS[lost]:
                self._try_again(self.tasks[stage.fingerprint], lost)
                return
        self.free = self.free + stage.demand(self.runner.resources)
        self.runner.store.refresh(stage)
        for observer in self.runner.observers:
            observer.failed(stage, error) if error else observer.finished(stage, future.result())
        if error is None:
            self.unfinished.discard(stage.fingerprint)
        else:
            self.failures.append((stage, error))
            write_failure(self.runner.store.directory(stage), first_line(error))

    def _try_again(self, task: Assignment, lost: str) -> None:
        if lost == "memory":
            # What ran beside it may have taken the memory, and the monitor may have ended the wrong one.
            self.starved.append(task)
            self.rest_until = time.monotonic() + REST_SECONDS * self.deaths[task.stage.fingerprint, lost]
        else:
            self.running[self.start(task)] = task.stage


def _outcome(future: Future[str]) -> tuple[BaseException | None, str | None]:
    """Return the error of a task, if any, and what was lost when that is why it ended."""
    error: Any = future.exception()
    ray_errors = sys.modules.get("ray.exceptions")
    if error is None or ray_errors is None:
        return error, None
    if isinstance(error, ray_errors.RayTaskError):
        # Ray's own class holds the worker's traceback as text; that is in the stage's log already.
        error = error.cause
    if isinstance(error, ray_errors.OutOfMemoryError):
        return MemoryError(_MEMORY), "memory"
    if isinstance(error, ray_errors.NodeDiedError | ray_errors.TaskUnschedulableError):
        return error, "node"
    return error, "process" if isinstance(error, ray_errors.WorkerCrashedError) else None


@contextlib.contextmanager
def executor(resources: Resources) -> Generator[tuple[Start, Capacity]]:
    """Yield what starts a stage, and how much of everything there is."""
    if not resources.cluster.ray:
        # One thread, so one stage at a time: a stage may take whatever it asks for.
        yield _in_this_process, Capacity(nodes=(Demand(cpus=1e9, gpus=1e9),))
        return
    from cong.graph.cluster import connected

    with connected(resources) as capacity:
        places = ThreadPoolExecutor(max_workers=_PLACED_AT_ONCE, thread_name_prefix="place")
        try:
            yield functools.partial(_as_ray_task, places), capacity
        finally:
            places.shutdown(wait=False, cancel_futures=True)


def _in_this_process(task: Assignment) -> "Future[str]":
    future: Future[str] = Future()
    try:
        future.set_result(execute(task))
    except Exception as error:
        future.set_exception(error)
    return future


def _as_ray_task(places: ThreadPoolExecutor, task: Assignment) -> "Future[str]":
    demand = task.stage.demand(task.resources)
    if not (demand.in_children and task.resources.cluster.one_node):
        return _started(task, demand, "DEFAULT")
    from cong.graph.cluster import node_with_room

    future: Future[str] = Future()

    def place() -> None:
        try:
            _started(task, demand, node_with_room(demand)).add_done_callback(lambda done: _pass_on(done, future))
        except Exception as error:
            future.set_exception(error)

    places.submit(place)
    return future


def _pass_on(done: "Future[str]", future: "Future[str]") -> None:
    future.set_result(done.result()) if done.exception() is None else future.set_exception(done.exception())


def _started(task: Assignment, demand: Demand, strategy: Any) -> "Future[str]":
    import ray

    held = Demand(cpus=0) if demand.in_children else demand
    remote: Any = ray.remote(_execute_with_log)
    started = remote.options(
        num_cpus=held.cpus,
        num_gpus=held.gpus,
        # Ray counts no end that is for want of memory: it would try for ever. So the schedule counts.
        max_retries=0,
        scheduling_strategy=strategy,  # Not into the resources of the Tune trial, if any, that asks for it.
        name=task.stage.title,
    )
    return started.remote(task).future()


def _execute_with_log(task: Assignment) -> str:
    with output_to(task.store.directory(task.stage) / LOG):
        try:
            return execute(task)
        except Exception as error:
            traceback.print_exc()
            with contextlib.suppress(OSError):
                task.store.share(task.store.directory(task.stage) / LOG)
            _let_go(error)
            raise


def _let_go(error: BaseException) -> None:
    """End what the frames of a failure hold: Ray Data's actors would keep the CPUs that the next stage waits for."""
    found: BaseException | None = error
    while found is not None:
        traceback.clear_frames(found.__traceback__)
        found = found.__cause__ or found.__context__
    gc.collect()


def check_capacity(plan: Plan, resources: Resources, capacity: Capacity) -> str | None:
    """Raise `UserError` when a stage to run needs more than there is: it would wait for ever.

    Of a cluster that grows it is only returned, as a line for the user.
    """
    for stage in plan.todo:
        lack = capacity.lack(stage.demand(resources))
        if lack is not None and not capacity.grows:
            raise UserError(f"{stage.title} {lack}")
        if lack is not None:
            return f"note: {stage.title} {lack}: its autoscaler has to add nodes"
    return None


def room(capacity: Capacity) -> Demand:
    """Return how much may be asked for at a time: an autoscaler adds nodes for what waits."""
    return Demand(cpus=math.inf, gpus=math.inf) if capacity.grows else capacity.total


def first_line(error: BaseException) -> str:
    """Return class and message of an error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
