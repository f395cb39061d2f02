"""Runs the stages of a plan, several at a time as far as the resources go, and tells observers what happens.

With Ray a stage is a Ray task that may start Ray Data actors or Ray Train workers; without, it runs in this process.
A stage whose process dies is tried again and goes on where it stopped; one that raises fails, and what does not need it
is still computed.
"""

import contextlib
import gc
import math
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol

from cong.errors import UserError
from cong.graph.demand import Capacity, Demand
from cong.graph.execute import LOG, Assignment, execute, output_to, provenance
from cong.graph.journal import write_failure
from cong.graph.naming import definition
from cong.graph.plan import Plan
from cong.graph.resources import Resources
from cong.graph.stage import Stage
from cong.graph.store import Store

TICK = 1.0
_DEATHS = 2


class Observer(Protocol):
    """Someone who wants to know: the terminal, the tracker."""

    def started(self, stage: Stage) -> None:
        """A stage is given to a process."""
        ...

    def finished(self, stage: Stage, outcome: str) -> None:
        """A stage ended as `made` or `hit`."""
        ...

    def failed(self, stage: Stage, error: BaseException) -> None:
        """A stage raised."""
        ...

    def tick(self, running: list[Stage]) -> None:
        """About a second has passed."""
        ...


class StageFailed(RuntimeError):
    """At least one stage failed; `failures` holds each with its error."""

    def __init__(self, failures: list[tuple[Stage, BaseException]]) -> None:
        self.failures = failures
        super().__init__("; ".join(f"{stage.title}: {first_line(error)}" for stage, error in failures))


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Executes plans. `observers` are called from one thread."""

    store: Store
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
        with executor(self.resources) as (call, capacity):
            check_capacity(plan, self.resources, capacity)
            _Schedule(runner=self, plan=plan, call=call, capacity=self.share or room(capacity)).run()


class _Schedule:
    def __init__(self, *, runner: Runner, plan: Plan, call: Callable[[Assignment], str], capacity: Demand) -> None:
        self.runner, self.plan, self.call = runner, plan, call
        self.free = capacity
        self.waiting = list(plan.todo)
        self.running: dict[Future, Stage] = {}
        self.unfinished = {stage.fingerprint for stage in plan.todo}
        self.failures: list[tuple[Stage, BaseException]] = []
        self.pool = ThreadPoolExecutor(max_workers=len(plan.todo)) if runner.resources.ray else None

    def run(self) -> None:
        try:
            while self.waiting or self.running:
                self._start_what_fits()
                if not self.running:
                    break
                self._collect()
        finally:
            # After an interrupt nobody waits for the running stages: they end with the connection to Ray.
            if self.pool:
                self.pool.shutdown(wait=False, cancel_futures=True)
        if self.failures:
            raise StageFailed(self.failures)

    def _start_what_fits(self) -> None:
        for stage in list(self.waiting):
            demand = stage.demand(self.runner.resources)
            ready = not any(item.fingerprint in self.unfinished for item in stage.inputs)
            if ready and demand.fits(self.free):
                self.waiting.remove(stage)
                self.free = _minus(self.free, demand)
                self.running[self._submit(self._assignment(stage))] = stage

    def _submit(self, task: Assignment) -> Future:
        if self.pool:
            return self.pool.submit(self.call, task)
        future: Future = Future()
        try:
            future.set_result(self.call(task))
        except Exception as error:
            future.set_exception(error)
        return future

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
        done, _ = wait(self.running, timeout=TICK, return_when=FIRST_COMPLETED)
        for future in done:
            self._settle(self.running.pop(future), future)
        for observer in self.runner.observers:
            observer.tick(list(self.running.values()))

    def _settle(self, stage: Stage, future: Future) -> None:
        self.free = _plus(self.free, stage.demand(self.runner.resources))
        self.runner.store.refresh(stage)
        error = future.exception()
        for observer in self.runner.observers:
            observer.failed(stage, error) if error else observer.finished(stage, future.result())
        if error is None:
            self.unfinished.discard(stage.fingerprint)
        else:
            self.failures.append((stage, error))
            write_failure(self.runner.store.directory(stage), first_line(error))


@contextlib.contextmanager
def executor(resources: Resources) -> Iterator[tuple[Callable[[Assignment], str], Capacity]]:
    """Yield what runs a stage, and how much of everything there is."""
    if not resources.ray:
        # One thread, so one stage at a time: a stage may take whatever it asks for.
        yield execute, Capacity(nodes=(Demand(cpus=1e9, gpus=1e9),))
        return
    from cong.graph.cluster import connected

    with connected(resources) as capacity:
        yield _as_ray_task, capacity


def _as_ray_task(task: Assignment) -> str:
    import ray
    from ray.exceptions import RayTaskError

    from cong.graph.cluster import node_with_room

    demand = task.stage.demand(task.resources)
    cpus, gpus = (0, 0) if demand.in_children else (demand.cpus, demand.gpus)
    remote = ray.remote(_execute_with_log).options(
        num_cpus=cpus,
        num_gpus=gpus,
        max_retries=_DEATHS,
        retry_exceptions=False,
        # Not into the resources of the Tune trial, if any, that asks for it.
        scheduling_strategy=node_with_room(demand) if demand.in_children and task.resources.one_node else "DEFAULT",
        name=task.stage.title,
    )
    try:
        return ray.get(remote.remote(task))
    except RayTaskError as error:
        # Ray's own class holds the worker's traceback as text; that is in the stage's log already.
        raise error.cause from None


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


def _minus(a: Demand, b: Demand) -> Demand:
    return Demand(cpus=a.cpus - b.cpus, gpus=a.gpus - b.gpus)


def _plus(a: Demand, b: Demand) -> Demand:
    return Demand(cpus=a.cpus + b.cpus, gpus=a.gpus + b.gpus)


def first_line(error: BaseException) -> str:
    """Return class and message of an error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
