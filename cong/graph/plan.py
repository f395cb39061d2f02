"""What a run would do: which stages are needed, which of them are in the store, and what they demand.

Nothing is imported, started or computed; ten thousand cells are planned in seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from cong.errors import UserError
from cong.graph.demand import Demand
from cong.graph.resources import Resources
from cong.graph.stage import Stage, topological
from cong.graph.store import NOT_FINISHED, Store


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Stages in an order in which inputs come first."""

    targets: Mapping[str, Stage]
    """The cells: name and final stage."""
    stages: tuple[Stage, ...]
    faults: dict[str, str]
    """Fingerprint to the reason why a stage cannot be taken from the store."""
    forced: frozenset[str]
    todo: tuple[Stage, ...]
    """Stages to run. A stage that is missing but that nobody needs is not among them."""

    def state(self, stage: Stage) -> str:
        """Return `cached`, `to run` or why a finished stage is made anew, for a reader."""
        if stage.fingerprint in self.forced:
            return "to run (forced)"
        fault = self.faults.get(stage.fingerprint)
        if fault is None:
            return "cached"
        if stage.fingerprint not in self._needed:
            return "not needed"
        return "to run" if fault == NOT_FINISHED else f"to run ({fault})"

    @cached_property
    def _needed(self) -> frozenset[str]:
        return frozenset(stage.fingerprint for stage in self.todo)

    def peak(self, resources: Resources) -> Demand:
        """Return the largest demand of a single stage to run: what a cluster must have at the least."""
        demands = [stage.demand(resources) for stage in self.todo] or [Demand(cpus=0)]
        return Demand(cpus=max(d.cpus for d in demands), gpus=max(d.gpus for d in demands))


def make_plan(targets: Mapping[str, Stage], store: Store, *, force: tuple[str, ...] = ()) -> Plan:
    """Compare the graph of `targets` with the store. `force` holds names of stages, or parts of their directories'."""
    stages = topological(list(targets.values()))
    forced = frozenset(stage.fingerprint for name in force for stage in _matching(stages, name))
    faults = store.faults(stages)
    needed = _needed(list(targets.values()), stages, faults, forced)
    todo = tuple(stage for stage in stages if stage.fingerprint in needed)
    return Plan(targets=targets, stages=tuple(stages), faults=faults, forced=forced, todo=todo)


def _needed(targets: list[Stage], stages: list[Stage], faults: dict[str, str], forced: frozenset[str]) -> set[str]:
    needed: set[str] = set()
    queue = [*targets, *(stage for stage in stages if stage.fingerprint in forced)]
    while queue:
        stage = queue.pop()
        missing = stage.fingerprint in faults or stage.fingerprint in forced
        if missing and stage.fingerprint not in needed:
            needed.add(stage.fingerprint)
            queue.extend(stage.inputs)
    return needed


def _matching(stages: list[Stage], name: str) -> list[Stage]:
    found = [stage for stage in stages if name == stage.name or name in stage.slug]
    if not found:
        known = ", ".join(sorted({stage.name for stage in stages}))
        raise UserError(f"--force {name}: no stage of this experiment has that name; there are {known}")
    return found
