"""What a stage occupies while it runs, and what a cluster has.

Capacity(nodes=(Demand(cpus=8, gpus=4),)).lack(Demand(gpus=8))    # "needs 8 GPUs, the cluster has 4"
"""

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a running stage occupies, in Ray's logical units."""

    cpus: float = 1.0
    gpus: float = 0.0
    in_children: bool = False
    """Whether actors or workers that the stage starts hold this, and not the stage's own process."""
    processes: int = 1
    """How many processes hold this in equal parts: each needs its part on one node, different ones may be apart."""

    def fits(self, free: "Demand") -> bool:
        """Tell whether this demand can start while `free` is unoccupied."""
        return self.cpus <= free.cpus + 1e-9 and self.gpus <= free.gpus + 1e-9

    def __add__(self, other: "Demand") -> "Demand":
        return Demand(cpus=self.cpus + other.cpus, gpus=self.gpus + other.gpus)

    def __sub__(self, other: "Demand") -> "Demand":
        return Demand(cpus=self.cpus - other.cpus, gpus=self.gpus - other.gpus)

    @property
    def part(self) -> "Demand":
        """Return what one of the processes holds."""
        return Demand(cpus=self.cpus / self.processes, gpus=self.gpus / self.processes)

    def times(self, processes: int) -> "Demand":
        """Return what so many processes like this one hold together."""
        return Demand(cpus=self.cpus * processes, gpus=self.gpus * processes, processes=processes)

    def __str__(self) -> str:
        gpus = f" {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus}"


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the nodes of a cluster have."""

    nodes: tuple[Demand, ...]
    grows: bool = False
    """Whether an autoscaler may add nodes: what does not fit now may fit later."""

    @property
    def total(self) -> Demand:
        """Return what all nodes have together."""
        return Demand(cpus=sum(node.cpus for node in self.nodes), gpus=sum(node.gpus for node in self.nodes))

    def lack(self, demand: Demand) -> str | None:
        """Return as text what a demand needs and the cluster does not have, or None when it can start."""
        total = self.total
        for name, wanted, there in (("GPU", demand.gpus, total.gpus), ("CPU", demand.cpus, total.cpus)):
            if wanted > there + 1e-9:
                return f"needs {count(wanted, name)}, the cluster has {there:g}"
        places = self.places(demand.part)
        if places >= demand.processes:
            return None
        if demand.processes == 1:
            return f"needs {demand.part} on one node, the cluster has {self}"
        return (
            f"needs {demand.processes} times {demand.part} on one node each, the cluster has room for {places}: {self}"
        )

    def places(self, part: Demand) -> int:
        """Return how many processes of that size all nodes hold at a time."""
        return sum(_times(part, node) for node in self.nodes)

    def __str__(self) -> str:
        kinds = Counter(str(node) for node in self.nodes)
        return f"{self.total} on {count(len(self.nodes), 'node')}" + (
            f" ({', '.join(f'{number} x {kind}' for kind, number in kinds.items())})" if len(self.nodes) > 1 else ""
        )


def count(number: float, thing: str) -> str:
    """Return a number with its noun: `1 GPU`, `8 GPUs`."""
    return f"{number:g} {thing}" + ("" if number == 1 else "s")


def _times(part: Demand, node: Demand) -> int:
    """Return how many processes of that size a node holds at a time."""
    pairs = ((part.cpus, node.cpus), (part.gpus, node.gpus))
    return min((int(there / wanted + 1e-9) for wanted, there in pairs if wanted > 0), default=1_000_000)
