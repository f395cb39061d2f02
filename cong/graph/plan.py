"""What a run would do: which stages are needed, which of them are in the store, and what they demand.

Nothing is imported, started or computed; ten thousand cells are planned in seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from cong.errors import UserError
from cong.graph.demand import Demand
from cong.graph.naming import check_classes, check_maker, definition
from cong.graph.resources import Resources
from cong.graph.stage import Stage, topological
from cong.graph.store import FOREIGN, NOT_FINISHED, STALE, StageStore, collision


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Stages in an order in which inputs come first."""

    targets: Mapping[str, Stage]
    """The cells: name and final stage."""
    stages: tuple[Stage, ...]
    faults: dict[str, str]
    """Fingerprint to the reason why a stage cannot be taken from the store."""
    forced: frozenset[str]
    """Stages to run although they are finished: those that `--force` names, and all that depend on what is remade."""
    todo: tuple[Stage, ...]
    """Stages to run. A stage that is missing but that nobody needs is not among them."""
    named: frozenset[str] = frozenset()
    """Of the forced stages those that `--force` names."""

    def state(self, stage: Stage) -> str:
        """Return `cached`, `to run` or why a finished stage is recomputed, for a reader."""
        if stage.fingerprint in self.forced:
            return f"to run ({'forced' if stage.fingerprint in self.named else 'an input is computed again'})"
        fault = self.faults.get(stage.fingerprint)
        if fault is None:
            return "cached"
        if stage.fingerprint not in self._needed:
            return "not needed"
        return "to run" if fault == NOT_FINISHED else f"to run ({fault})"

    @cached_property
    def _needed(self) -> frozenset[str]:
        return frozenset(stage.fingerprint for stage in self.todo)

    @property
    def stale(self) -> bool:
        """Whether a finished stage was made from an input that has other content by now."""
        return any(fault.startswith(STALE) for fault in self.faults.values())

    @property
    def endangers(self) -> bool:
        """Whether a finished stage stays that was made from one that is to run: it may turn out to be stale."""
        left = self._needed | self.faults.keys()
        kept = (stage for stage in self.stages if stage.fingerprint not in left)
        return any(item.fingerprint in self._needed for stage in kept for item in stage.inputs)

    def peak(self, resources: Resources) -> Demand:
        """Return the largest demand of a single stage to run: what a cluster must have at the least."""
        demands = [stage.demand(resources) for stage in self.todo] or [Demand(cpus=0)]
        return Demand(cpus=max(d.cpus for d in demands), gpus=max(d.gpus for d in demands))


def make_plan(targets: Mapping[str, Stage], store: StageStore, *, force: tuple[str, ...] = ()) -> Plan:
    """Compare the graph of `targets` with the store. `force` holds names of stages, or parts of their directories'.

    What depends on a forced stage, or on one whose input was remade since, is computed again as well: a report never
    mixes two generations. Raises `UserError` for stages that the store could take for each other.
    """
    check_classes(targets.values())
    stages = topological(list(targets.values()))
    named = frozenset(stage.fingerprint for name in force for stage in _matching(stages, name))
    faults = store.faults(stages)
    _check_places(stages, faults, store)
    forced = named | _dependants(stages, faults, named)
    needed = _needed(list(targets.values()), stages, faults, forced)
    todo = tuple(stage for stage in stages if stage.fingerprint in needed)
    return Plan(targets=targets, stages=tuple(stages), faults=faults, forced=forced, todo=todo, named=named)


def _check_places(stages: list[Stage], faults: dict[str, str], store: StageStore) -> None:
    places: dict[tuple[str, str], Stage] = {}
    for stage in stages:
        other = places.setdefault((stage.name, stage.slug), stage)
        if other is not stage or faults.get(stage.fingerprint) == FOREIGN:
            raise UserError(collision(stage, store.directory(stage)))


def check_makers(plan: Plan, store: StageStore) -> None:
    """Raise `UserError` when a stage of a user's file was finished by another class of the same name."""
    for stage in plan.stages:
        if stage.fingerprint not in plan.faults and definition(type(stage)):
            check_maker(stage, store.record(stage).get("class"))


def _dependants(stages: list[Stage], faults: dict[str, str], named: frozenset[str]) -> frozenset[str]:
    """Return what depends on stages that are forced or stale."""
    stale = {fingerprint for fingerprint, fault in faults.items() if fault.startswith(STALE)}
    remade = stale | named
    found: set[str] = set()
    for stage in stages:
        if any(item.fingerprint in remade for item in stage.inputs):
            remade.add(stage.fingerprint)
            found.add(stage.fingerprint)
    return frozenset(found)


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
