"""The parts of a profile: where stages run, on what, and how they decode and train. None enters an identity."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

DeepSpeed = Literal["none", "zero2", "zero3", "zero3-offload"]
Backend = Literal["auto", "slots", "transformers", "vllm"]
Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where stages run."""

    ray: bool = True
    """Run stages as Ray tasks; without it they run one after the other in the calling process."""
    address: str | None = None
    """Address of a Ray cluster; None starts Ray on this machine."""
    cpus: int | None = None
    """Logical CPUs of a Ray started on this machine; None takes what the machine has."""
    one_node: bool = False
    """Keep all processes of a stage on one node: they share its directory, which on object storage is a node's own."""
    let_through: tuple[str, ...] = ()
    """Variables of the shell that stages see beside those of `cong.graph.environment`; `MY_*` are all that begin so."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "let_through", tuple(self.let_through))


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a process computes on."""

    device: Device = "cpu"
    dtype: Dtype = "float32"
    threads: int = 1
    """Torch threads per process on a CPU."""
    memory_gb: float | None = None
    """Memory in 10^9 bytes that a training process may fill on a CPU: its micro-batch is made smaller to fit."""
    gpu_memory_gb: float | None = None
    """Memory of a GPU in 10^9 bytes; a stage that needs more is refused. None, as for a CPU, checks nothing."""
    gpu_tflops: float | None = None
    """Peak rate of a GPU in 10^12 dense operations per second, in the dtype: what hours are estimated from."""
    gpu_bandwidth: float | None = None
    """Peak rate of a GPU's memory in 10^9 bytes per second."""

    def __post_init__(self) -> None:
        _check_choices(self, {"device": get_args(Device), "dtype": get_args(Dtype)})
        _check_lowest(self, {"threads": 1})

    @property
    def gpus_per_process(self) -> float:
        """GPUs that one actor or one training worker holds."""
        return 1.0 if self.device == "cuda" else 0.0

    @property
    def itemsize(self) -> int:
        """Bytes of an element of the dtype."""
        return 2 if self.dtype == "bfloat16" else 4


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How responses are decoded."""

    backend: Backend = "slots"
    """Engine that decodes. "auto" takes vLLM on a GPU where it is installed, and the slot engine elsewhere."""
    actors: int = 1
    """Ray Data actors per generating stage; 0 generates in the stage's own process."""
    slots: int | Literal["auto"] = 64
    """Rows that one actor decodes at a time; "auto" takes as many as fit the free memory of its GPU."""
    tensor_parallel: int = 1
    """GPUs (or processes, on a CPU) over which vLLM spreads the models of one actor; the other backends take one."""
    cuda_graphs: bool = False
    """Replay captured decoding steps on a GPU: responses of a 3B pair took a third of the time on an H200."""

    def __post_init__(self) -> None:
        _check_choices(self, {"backend": get_args(Backend)})
        _check_lowest(self, {"actors": 0, "tensor_parallel": 1, **({} if self.slots == "auto" else {"slots": 1})})
        if self.tensor_parallel > 1 and self.backend not in ("auto", "vllm"):
            raise ValueError(f"tensor_parallel = {self.tensor_parallel} needs backend = 'vllm', not {self.backend!r}")

    @property
    def rows_at_a_time(self) -> int:
        """Rows that keep an actor busy; a usual number where the actor finds out itself how many fit."""
        return 256 if self.slots == "auto" else self.slots


@dataclass(frozen=True, kw_only=True)
class Training:
    """How models are trained."""

    workers: int = 1
    """Processes of Ray Train per training, each with a GPU where there are GPUs."""
    deepspeed: DeepSpeed = "none"
    micro_tokens: int = 4096
    """Tokens in one forward pass of a worker, or one row if it has more; no loss depends on it."""
    compile: bool = False
    """Let PyTorch compile the layers: the first steps take minutes, later ones are faster on a GPU."""
    checkpoint_seconds: float = 600.0
    """A checkpoint is written when this much time has passed since the last one."""

    def __post_init__(self) -> None:
        _check_choices(self, {"deepspeed": get_args(DeepSpeed)})
        _check_lowest(self, {"workers": 1, "micro_tokens": 1})
        if self.compile and self.deepspeed != "none":
            raise ValueError(f"compile = true needs deepspeed = 'none', not {self.deepspeed!r}")

    @property
    def distributed(self) -> bool:
        """Whether training needs Ray Train workers; one plain worker trains in the stage's own process."""
        return self.workers > 1 or self.deepspeed != "none"


def _check_choices(part: Any, choices: Mapping[str, tuple[str, ...]]) -> None:
    for name, allowed in choices.items():
        if getattr(part, name) not in allowed:
            raise ValueError(f"{name} = {getattr(part, name)!r} is not one of {', '.join(allowed)}")


def _check_lowest(part: Any, lowest: Mapping[str, int]) -> None:
    for name, least in lowest.items():
        if getattr(part, name) < least:
            raise ValueError(f"{name} = {getattr(part, name)} is below {least}")
