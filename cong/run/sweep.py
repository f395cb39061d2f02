"""Sweeps on Ray Tune: one trial per cell of a grid.

Stages that several cells need are computed first, each once, by the runner. What is left belongs to one cell each, and
a trial computes it inside its share of the cluster: as many trials run at a time as their largest stage fits into what
there is, so no two of them can wait for each other. Trials tell the driver about every stage; only the driver talks to
the terminal and the tracker.

    Sweep(store=store, resources=resources, capacity=capacity, observers=observers).run(plan)
"""

import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cong.errors import UserError
from cong.graph.cluster import this_node
from cong.graph.demand import Capacity, Demand
from cong.graph.plan import Plan
from cong.graph.resources import Resources
from cong.graph.runner import TICK, Observer, Runner, StageFailed, first_line, room
from cong.graph.stage import Stage, topological
from cong.graph.store import StageStore

VALUE, WHY = "value", "why"
_CELL, _EVENT = "cell", "event"
_DEATHS = 2

Failures = list[tuple[Stage, BaseException]]
Work = Callable[[Mapping[str, Any]], Plan]
"""From the configuration of a trial to what it is to compute."""
Value = Callable[[Mapping[str, Any]], float]
"""From the configuration of a finished trial to the number that a searcher is given; one that is not finite is none."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Computes plans by trials of Ray Tune; Ray must be connected. `capacity` is what the cluster has."""

    store: StageStore
    resources: Resources
    capacity: Capacity
    observers: tuple[Observer, ...] = ()
    tracking_run: str | None = None

    @property
    def _runner(self) -> Runner:
        return Runner(store=self.store, resources=self.resources, tracking_run=self.tracking_run)

    def run(self, plan: Plan) -> None:
        """Compute what the cells of a plan lack; raise `StageFailed` at the end when something failed."""
        shared, own = split(plan)
        failures = self.run_stages(shared, forced=plan.forced)
        lost = {stage.fingerprint for stage, _ in failures}
        plans = {name: _part(todo, forced=plan.forced) for name, todo in own.items() if not lost & _all(plan, name)}
        if plans:
            listener = Listener(observers=self.observers, stages=plan.todo)
            self._fit_cells(plans, listener)
            failures += listener.failures
            if listener.refused and not failures:
                raise UserError(listener.refused[0][1])
        if failures:
            raise StageFailed(failures)

    def run_stages(self, stages: Sequence[Stage], *, forced: frozenset[str] = frozenset()) -> Failures:
        """Compute stages without trials; return what failed."""
        try:
            replace(self._runner, observers=self.observers).run(_part(stages, forced=forced))
        except StageFailed as failed:
            return failed.failures
        return []

    def _fit_cells(self, plans: dict[str, Plan], listener: "Listener") -> None:
        from ray import tune

        self.fit(
            work=lambda config: plans[config[_CELL]],
            value=lambda config: 0.0,
            space={_CELL: tune.grid_search(list(plans))},
            stages=[stage for plan in plans.values() for stage in plan.todo],
            listener=listener,
        )

    def fit(
        self,
        *,
        work: Work,
        value: Value,
        space: dict[str, Any],
        stages: Sequence[Stage],
        listener: "Listener",
        **search: Any,
    ) -> None:
        """Run trials; `stages` are such as they will run, `search` are further fields of `TuneConfig`."""
        from ray import tune

        _quiet()
        at_once, share = concurrency(stages, self.resources, self.capacity)
        runner = replace(self._runner, share=share)
        trial = tune.with_parameters(_trial, work=work, value=value, runner=runner)
        config = tune.TuneConfig(
            metric=VALUE, max_concurrent_trials=at_once, reuse_actors=True, **{"mode": "max", **search}
        )
        # Nothing of it is needed afterwards: what was finished is in the store, and found there by the next run.
        with tempfile.TemporaryDirectory(prefix="cong-tune-") as scratch:
            run = tune.RunConfig(
                storage_path=scratch, failure_config=tune.FailureConfig(max_failures=_DEATHS),
                callbacks=[_callback(listener)], verbose=0)  # fmt: skip
            # A place on the driver's own node, so that no other node's end takes it along. No CPU: a trial only waits.
            tuner = tune.Tuner(
                tune.with_resources(trial, this_node()), param_space=space, tune_config=config, run_config=run
            )
            found = tuner.fit()
        # What ended a trial outside of its stages, such as a measure that its cells do not have.
        for error in found.errors:
            if not listener.failures:
                raise getattr(error, "cause", error)


def split(plan: Plan) -> tuple[list[Stage], dict[str, list[Stage]]]:
    """Return the stages to run that several cells need, and per cell those that only it needs."""
    todo = {stage.fingerprint: stage for stage in plan.todo}
    # Two cells of one name cannot be, but two names can mean one stage: it counts once.
    targets = {target.fingerprint: name for name, target in plan.targets.items()}
    needs = {
        name: [stage for stage in topological([plan.targets[name]]) if stage.fingerprint in todo]
        for name in targets.values()
    }
    count = Counter(stage.fingerprint for stages in needs.values() for stage in stages)
    shared = [stage for stage in plan.todo if count[stage.fingerprint] != 1]
    own = {name: [stage for stage in stages if count[stage.fingerprint] == 1] for name, stages in needs.items()}
    return shared, {name: stages for name, stages in own.items() if stages}


def concurrency(stages: Sequence[Stage], resources: Resources, capacity: Capacity) -> tuple[int, Demand]:
    """Return how many trials can run at a time without waiting for each other, and the share of each.

    A share holds the largest process of any stage as often as the stage of the most processes needs, on the nodes that
    there are: whatever stages the trials are at, each finds all of its places free.
    """
    parts = [stage.demand(resources).part for stage in stages]
    processes = max(stage.demand(resources).processes for stage in stages)
    part = Demand(cpus=max(p.cpus for p in parts), gpus=max(p.gpus for p in parts))
    fitting = capacity.places(part) // processes
    # Alone a trial needs no reserve: that each of its stages fits was checked.
    at_once = max(1, min(fitting, len(stages)))
    return at_once, part.times(processes) if fitting else room(capacity)


class Listener:
    """The driver's end of the trials: hands what they report on to the observers, and keeps what failed."""

    def __init__(self, *, observers: Sequence[Observer], stages: Sequence[Stage]) -> None:
        self.observers = observers
        self.failures: Failures = []
        self.refused: list[tuple[Mapping[str, Any], str]] = []
        """Configurations that could not be run, or have no finite value, each with the reason."""
        self._stages: dict[str, Stage] = {}
        self._running: dict[str, tuple[str, Stage]] = {}
        self._last_tick = 0.0
        self.add(stages)

    def begin(self, trial: str, config: Mapping[str, Any]) -> None:
        """A trial begins, or begins again."""

    def end(self, trial: str, config: Mapping[str, Any], value: float, why: str | None) -> None:
        """A trial has ended; `value` is NaN when a stage of it failed, or for the reason `why`."""
        if why is not None:
            self.refused.append((config, why))

    def add(self, stages: Sequence[Stage]) -> None:
        """Learn of stages that trials may report."""
        self._stages |= {stage.fingerprint: stage for stage in stages}

    def hear(self, trial: str, kind: str, fingerprint: str, what: Any) -> None:
        """Take what a trial reports of a stage."""
        stage = self._stages[fingerprint]
        if kind == "started":
            self._running[fingerprint] = trial, stage
            for observer in self.observers:
                observer.started(stage)
        elif kind == "finished":
            self._running.pop(fingerprint, None)
            for observer in self.observers:
                observer.finished(stage, what)
        else:
            self.fail(stage, what)

    def fail(self, stage: Stage, error: BaseException) -> None:
        """A stage raised, or its trial died once too often."""
        self._running.pop(stage.fingerprint, None)
        self.failures.append((stage, error))
        for observer in self.observers:
            observer.failed(stage, error)

    def die(self, trial: str) -> None:
        """A trial is given up, and the stages that it ran."""
        for stage in [stage for owner, stage in self._running.values() if owner == trial]:
            self.fail(stage, RuntimeError("the process of its trial died, and those that took its place"))

    def tick(self) -> None:
        """Let the observers look at what runs, about once a second."""
        if time.monotonic() - self._last_tick >= TICK:
            self._last_tick = time.monotonic()
            for observer in self.observers:
                observer.tick([stage for _, stage in self._running.values()])


class _Report:
    """Observer inside a trial: everything goes to the driver."""

    def started(self, stage: Stage) -> None:
        self._tell("started", stage, None)

    def finished(self, stage: Stage, outcome: str) -> None:
        self._tell("finished", stage, outcome)

    def failed(self, stage: Stage, error: BaseException) -> None:
        self._tell("failed", stage, _portable(error))

    def tick(self, running: list[Stage]) -> None:
        """The driver reads curves and progress in the store."""

    def _tell(self, kind: str, stage: Stage, what: Any) -> None:
        from ray import tune

        tune.report({_EVENT: (kind, stage.fingerprint, what), VALUE: float("nan")})


def _trial(config: dict[str, Any], *, work: Work, value: Value, runner: Runner) -> None:
    from ray import tune

    number, why = math.nan, None
    try:
        replace(runner, observers=(_Report(),)).run(work(config))
        number = value(config)
        why = None if math.isfinite(number) else f"the value is {number}"
    except StageFailed:
        pass  # Every failure was reported; an error here would make Tune try the trial again.
    except UserError as error:
        why = str(error)
    tune.report({_EVENT: None, VALUE: number if math.isfinite(number) else math.nan, WHY: why})


def _callback(listener: Listener) -> Any:
    from ray import tune

    class Callback(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            listener.begin(trial.trial_id, trial.config)

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            listener.end(trial.trial_id, trial.config, trial.last_result[VALUE], trial.last_result.get(WHY))

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            if result.get(_EVENT):
                listener.hear(trial.trial_id, *result[_EVENT])

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            listener.die(trial.trial_id)

        def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
            listener.tick()

    return Callback()


def _all(plan: Plan, name: str) -> set[str]:
    return {stage.fingerprint for stage in topological([plan.targets[name]])}


def _part(stages: Sequence[Stage], *, forced: frozenset[str]) -> Plan:
    return Plan(targets={}, stages=tuple(stages), faults={}, forced=forced, todo=tuple(stages))


def _portable(error: BaseException) -> BaseException:
    """Return the error, or what can be sent of it."""
    import cloudpickle

    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:
        return RuntimeError(first_line(error))
    return error


def _quiet() -> None:
    """Tune writes no tables of its own to the terminal, and no loggers' files."""
    import logging

    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
