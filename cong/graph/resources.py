"""How a run is executed: devices, actors, workers. Nothing here enters the identity of a stage.

Profiles are TOML files of these fields (`cluster/profiles/NAME.toml`); `load_profile("laptop")` reads one.
"""

import dataclasses
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cong.errors import UserError

PROFILES = Path(__file__).resolve().parents[2] / "cluster" / "profiles"


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
        part = Demand(cpus=demand.cpus / demand.processes, gpus=demand.gpus / demand.processes)
        places = sum(_times(part, node) for node in self.nodes)
        if places >= demand.processes:
            return None
        if demand.processes == 1:
            return f"needs {part} on one node, the cluster has {self}"
        return f"needs {demand.processes} times {part} on one node each, the cluster has room for {places}: {self}"

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


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Settings of an execution. `name` is the profile's."""

    name: str
    ray: bool = True
    """Run stages as Ray tasks; without it they run one after the other in the calling process."""
    address: str | None = None
    """Address of a Ray cluster; None starts Ray on this machine."""
    cpus: int | None = None
    """Logical CPUs of a Ray started on this machine; None takes what the machine has."""
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int = 1
    """Torch threads per process on a CPU."""
    backend: Literal["slots", "transformers"] = "slots"
    actors: int = 1
    """Ray Data actors per generating stage; 0 generates in the stage's own process."""
    slots: int | Literal["auto"] = 64
    """Rows that one actor decodes at a time; "auto" takes as many as fit the free memory of its GPU."""
    cuda_graphs: bool = False
    """Replay captured decoding steps on a GPU. Off until it was measured there."""
    train_workers: int = 1
    deepspeed: Literal["none", "zero2", "zero3", "zero3-offload"] = "none"
    micro_batch: int = 16
    checkpoint_seconds: float = 600.0
    """Training writes a checkpoint when this much time has passed since the last one."""

    def __post_init__(self) -> None:
        at_least = {"threads": 1, "actors": 0, "slots": 1, "train_workers": 1, "micro_batch": 1}
        for name, lowest in at_least.items():
            value = getattr(self, name)
            if (name, value) != ("slots", "auto") and value < lowest:
                raise ValueError(f"{name} = {value} is below {lowest}")
        if self.cuda_graphs and self.device != "cuda":
            raise ValueError(f"cuda_graphs needs device = 'cuda', not {self.device!r}")
        self._check_choices()

    def _check_choices(self) -> None:
        choices = {
            "device": ("cpu", "cuda"),
            "dtype": ("float32", "bfloat16"),
            "backend": ("slots", "transformers"),
            "deepspeed": ("none", "zero2", "zero3", "zero3-offload"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not one of {', '.join(allowed)}")

    @property
    def gpus_per_process(self) -> float:
        """GPUs that one actor or one training worker holds."""
        return 1.0 if self.device == "cuda" else 0.0

    @property
    def rows_at_a_time(self) -> int:
        """Rows that keep an actor busy; a usual number where the actor finds out itself how many fit."""
        return 256 if self.slots == "auto" else self.slots

    @property
    def distributed_training(self) -> bool:
        """Whether training needs Ray Train workers; one plain worker trains in the stage's own process."""
        return self.train_workers > 1 or self.deepspeed != "none"

    @property
    def uses_actors(self) -> bool:
        """Whether rows are decoded by Ray Data actors; otherwise in the stage's own process."""
        return self.ray and self.actors > 0

    def generation_demand(self) -> Demand:
        """Demand of a stage that decodes."""
        processes = max(self.actors, 1)
        cpus, gpus = processes * self.threads, processes * self.gpus_per_process
        parts = processes if self.uses_actors else 1
        return Demand(cpus=cpus, gpus=gpus, in_children=self.uses_actors, processes=parts)

    def training_demand(self) -> Demand:
        """Demand of a stage that trains."""
        cpus, gpus = self.train_workers * self.threads, self.train_workers * self.gpus_per_process
        return Demand(cpus=cpus, gpus=gpus, in_children=self.distributed_training, processes=self.train_workers)


def load_profile(name: str, **overrides) -> Resources:
    """Read the profile `name`, or the TOML file that it names; raise `UserError` when there is none or it is wrong."""
    path = profile_path(name)
    try:
        settings = tomllib.loads(path.read_text())
        return Resources(**{"name": path.stem, **settings, **overrides})
    except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        allowed = ", ".join(field.name for field in dataclasses.fields(Resources))
        raise UserError(f"profile {path.name}: {error}; the settings of a profile are {allowed}") from error


def profile_path(name: str) -> Path:
    """Return the file of a profile; raise `UserError` when there is none."""
    path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.toml"))) or "none"
        raise UserError(f"unknown profile {name!r}: known are {known}, or give the path of a .toml file")
    return path
