"""How a run is executed: devices, actors, workers. Nothing here enters the identity of a stage.

Profiles are TOML files of these fields (`cong/profiles/NAME.toml`); `load_profile("laptop")` reads one. What smaller
models are run with differently stands in tables of the file, the smallest first:

    [[sizes]]
    up_to_parameters = 4e9
    slots = 64
"""

import dataclasses
import functools
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from cong.errors import UserError
from cong.graph.demand import Demand
from cong.graph.judging import Judging

DeepSpeed = Literal["none", "zero2", "zero3", "zero3-offload"]
Backend = Literal["auto", "slots", "transformers", "vllm"]
PROFILES = Path(__file__).resolve().parents[1] / "profiles"


@dataclass(frozen=True, kw_only=True)
class SizeSettings:
    """What a profile sets differently for stages whose largest model has at most so many parameters."""

    up_to_parameters: float
    actors: int | None = None
    slots: int | Literal["auto"] | None = None
    tensor_parallel: int | None = None
    train_workers: int | None = None
    deepspeed: DeepSpeed | None = None
    micro_batch: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Return the settings that are not those of the profile."""
        values = dataclasses.asdict(self).items()
        return {name: value for name, value in values if value is not None and name != "up_to_parameters"}


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
    backend: Backend = "slots"
    """Engine that decodes. "auto" takes vLLM on a GPU where it is installed, and the slot engine elsewhere."""
    actors: int = 1
    """Ray Data actors per generating stage; 0 generates in the stage's own process."""
    slots: int | Literal["auto"] = 64
    """Rows that one actor decodes at a time; "auto" takes as many as fit the free memory of its GPU."""
    tensor_parallel: int = 1
    """GPUs (or processes, on a CPU) over which vLLM spreads the models of one actor; the other backends take one."""
    cuda_graphs: bool = False
    """Replay captured decoding steps on a GPU: a step of a 3B pair took a fifth of the time on an H200."""
    train_workers: int = 1
    deepspeed: DeepSpeed = "none"
    micro_batch: int = 16
    memory_gb: float | None = None
    """Memory in 10^9 bytes that a training process may fill on a CPU: its micro-batch is made smaller to fit."""
    checkpoint_seconds: float = 600.0
    """Training writes a checkpoint when this much time has passed since the last one."""
    gpu_memory_gb: float | None = None
    """Memory of a GPU in 10^9 bytes; a stage that needs more is refused. None, as for a CPU, checks nothing."""
    gpu_tflops: float | None = None
    """Peak rate of a GPU in 10^12 dense operations per second, in the dtype: what hours are reckoned from."""
    gpu_bandwidth: float | None = None
    """Peak rate of a GPU's memory in 10^9 bytes per second."""
    sizes: tuple[SizeSettings, ...] = ()
    """Settings for smaller models, by rising size; the profile's own hold for larger ones and those of unknown size."""
    one_node: bool = False
    """Keep all processes of a stage on one node: they share its directory, which on object storage is a node's own."""
    judging: Judging = field(default_factory=Judging)
    let_through: tuple[str, ...] = ()
    """Variables of the shell that stages see beside those of `cong.graph.environment`; `MY_*` are all that begin so."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "let_through", tuple(self.let_through))
        at_least = {"threads": 1, "actors": 0, "slots": 1, "tensor_parallel": 1, "train_workers": 1, "micro_batch": 1}
        for name, lowest in at_least.items():
            value = getattr(self, name)
            if (name, value) != ("slots", "auto") and value < lowest:
                raise ValueError(f"{name} = {value} is below {lowest}")
        if self.cuda_graphs and self.device != "cuda":
            raise ValueError(f"cuda_graphs needs device = 'cuda', not {self.device!r}")
        self._check_choices()
        if self.tensor_parallel > 1 and self.backend not in ("auto", "vllm"):
            raise ValueError(f"tensor_parallel = {self.tensor_parallel} needs backend = 'vllm', not {self.backend!r}")
        bounds = [size.up_to_parameters for size in self.sizes]
        if bounds != sorted(set(bounds)):
            raise ValueError(f"up_to_parameters of sizes must rise from table to table, not be {bounds}")
        for bound in bounds:
            self.for_size(bound)

    def for_size(self, parameters: float | None) -> "Resources":
        """Return the settings for a stage whose largest model has so many parameters; None when that is not known."""
        if parameters is None or not self.sizes:
            return self
        return _chosen(self, next((size for size in self.sizes if parameters <= size.up_to_parameters), None))

    def _check_choices(self) -> None:
        choices = {
            "device": ("cpu", "cuda"),
            "dtype": ("float32", "bfloat16"),
            "backend": get_args(Backend),
            "deepspeed": get_args(DeepSpeed),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not one of {', '.join(allowed)}")

    @property
    def gpus_per_process(self) -> float:
        """GPUs that one actor or one training worker holds."""
        return 1.0 if self.device == "cuda" else 0.0

    @property
    def actor_demand(self) -> Demand:
        """What one actor that decodes holds."""
        cpus = self.threads * (self.tensor_parallel if self.device == "cpu" else 1)
        return Demand(cpus=cpus, gpus=self.tensor_parallel * self.gpus_per_process)

    @property
    def itemsize(self) -> int:
        """Bytes of an element of the dtype."""
        return 2 if self.dtype == "bfloat16" else 4

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
        held = self.actor_demand.times(processes)
        parts = processes if self.uses_actors and not self.one_node else 1
        return Demand(cpus=held.cpus, gpus=held.gpus, in_children=self.uses_actors, processes=parts)

    def training_demand(self) -> Demand:
        """Demand of a stage that trains."""
        cpus, gpus = self.train_workers * self.threads, self.train_workers * self.gpus_per_process
        parts = 1 if self.one_node else self.train_workers
        return Demand(cpus=cpus, gpus=gpus, in_children=self.distributed_training, processes=parts)


@functools.lru_cache(maxsize=64)
def _chosen(resources: Resources, size: SizeSettings | None) -> Resources:
    """Return the settings of one table: asked for by every one of thousands of stages, time and again."""
    return dataclasses.replace(resources, sizes=(), **(size.given if size else {}))


def load_profile(name: str, **overrides) -> Resources:
    """Read the profile `name`, or the TOML file that it names; raise `UserError` when there is none or it is wrong."""
    path = profile_path(name)
    try:
        settings = tomllib.loads(path.read_text())
        # What is chosen on the command line holds for every size of model.
        tables = [{k: v for k, v in table.items() if k not in overrides} for table in settings.pop("sizes", [])]
        given: dict[str, Any] = {"sizes": tuple(SizeSettings(**table) for table in tables)}
        if "judging" in settings:
            given["judging"] = Judging(**settings.pop("judging"))
        return Resources(**{"name": path.stem, **settings, **given, **overrides})
    except (tomllib.TOMLDecodeError, AttributeError, TypeError, ValueError) as error:
        allowed = ", ".join(field.name for field in dataclasses.fields(Resources))
        raise UserError(f"profile {path.name}: {error}; the settings of a profile are {allowed}") from error


def profile_path(name: str) -> Path:
    """Return the file of a profile; raise `UserError` when there is none."""
    path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.toml"))) or "none"
        raise UserError(f"unknown profile {name!r}: known are {known}, or give the path of a .toml file")
    return path
