"""How a run is executed: devices, actors, workers. Nothing here enters the identity of a stage.

Profiles are TOML files (`cong/profiles/NAME.toml`) with a table per part; `load_profile("laptop")` reads one. What
smaller models are run with differently stands in further tables, the smallest first:

    [hardware]
    device = "cuda"

    [[sizes]]
    up_to_parameters = 4e9
    slots = 64
"""

import dataclasses
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cong.errors import UserError
from cong.graph.demand import Demand
from cong.graph.judging import JudgeEndpoint
from cong.graph.parts import Cluster, Decoding, DeepSpeed, Hardware, Training

PARTS = {"cluster": Cluster, "hardware": Hardware, "decoding": Decoding, "training": Training}
PROFILES = Path(__file__).resolve().parents[1] / "profiles"
_CLUSTER, _HARDWARE, _DECODING, _TRAINING, _JUDGING = Cluster(), Hardware(), Decoding(), Training(), JudgeEndpoint()
_PART_OF = {item.name: part for part, kind in PARTS.items() for item in dataclasses.fields(kind)}


@dataclass(frozen=True, kw_only=True)
class SizeSettings:
    """What a profile sets differently for stages whose largest model has at most so many parameters."""

    up_to_parameters: float
    actors: int | None = None
    slots: int | Literal["auto"] | None = None
    tensor_parallel: int | None = None
    workers: int | None = None
    deepspeed: DeepSpeed | None = None
    micro_tokens: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Return the settings that are not those of the profile."""
        values = dataclasses.asdict(self).items()
        return {name: value for name, value in values if value is not None and name != "up_to_parameters"}


@dataclass(frozen=True, kw_only=True, init=False)
class Resources:
    """Settings of an execution: `Resources(name="mine", device="cuda", slots=128)`. `name` is the profile's."""

    name: str
    cluster: Cluster
    hardware: Hardware
    decoding: Decoding
    training: Training
    judging: JudgeEndpoint
    sizes: tuple[SizeSettings, ...]
    """Settings for smaller models, by rising size; the profile's own hold for larger ones and those of unknown size."""

    def __init__(
        self,
        *,
        name: str,
        cluster: Cluster = _CLUSTER,
        hardware: Hardware = _HARDWARE,
        decoding: Decoding = _DECODING,
        training: Training = _TRAINING,
        judging: JudgeEndpoint = _JUDGING,
        sizes: tuple[SizeSettings, ...] = (),
        **settings: Any,
    ) -> None:
        """Take whole parts, and settings by their own names, which go into the part that has them."""
        given = {"cluster": cluster, "hardware": hardware, "decoding": decoding, "training": training}
        parts = given | _replaced(given, settings)
        for key, value in {"name": name, **parts, "judging": judging, "sizes": sizes}.items():
            object.__setattr__(self, key, value)
        self._check()

    def _check(self) -> None:
        if self.decoding.cuda_graphs and self.hardware.device != "cuda":
            raise ValueError(f"cuda_graphs needs device = 'cuda', not {self.hardware.device!r}")
        bounds = [size.up_to_parameters for size in self.sizes]
        if bounds != sorted(set(bounds)):
            raise ValueError(f"up_to_parameters of sizes must rise from table to table, not be {bounds}")
        for bound in bounds:
            self.for_size(bound)

    def changed(self, **settings: Any) -> "Resources":
        """Return the resources with other settings, each put into the part that has it."""
        return dataclasses.replace(self, **settings)

    def for_size(self, parameters: float | None) -> "Resources":
        """Return the settings for a stage whose largest model has so many parameters; None when that is not known."""
        if parameters is None or not self.sizes:
            return self
        return _chosen(self, next((size for size in self.sizes if parameters <= size.up_to_parameters), None))

    @property
    def actor_demand(self) -> Demand:
        """What one actor that decodes holds."""
        hardware, spread = self.hardware, self.decoding.tensor_parallel
        cpus = hardware.threads * (spread if hardware.device == "cpu" else 1)
        return Demand(cpus=cpus, gpus=spread * hardware.gpus_per_process)

    @property
    def uses_actors(self) -> bool:
        """Whether rows are decoded by Ray Data actors; otherwise in the stage's own process."""
        return self.cluster.ray and self.decoding.actors > 0

    def generation_demand(self) -> Demand:
        """Demand of a stage that decodes."""
        processes = max(self.decoding.actors, 1)
        held = self.actor_demand.times(processes)
        parts = processes if self.uses_actors and not self.cluster.one_node else 1
        return Demand(cpus=held.cpus, gpus=held.gpus, in_children=self.uses_actors, processes=parts)

    def training_demand(self) -> Demand:
        """Demand of a stage that trains."""
        workers, hardware = self.training.workers, self.hardware
        parts = 1 if self.cluster.one_node else workers
        return Demand(
            cpus=workers * hardware.threads,
            gpus=workers * hardware.gpus_per_process,
            in_children=self.training.distributed,
            processes=parts,
        )


def _replaced(parts: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts that change; raise `TypeError` for a setting that none of them has."""
    chosen: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        if name not in _PART_OF:
            raise TypeError(f"unexpected keyword argument {name!r}: a profile has no such setting")
        chosen.setdefault(_PART_OF[name], {})[name] = value
    return {part: dataclasses.replace(parts[part], **values) for part, values in chosen.items()}


@functools.lru_cache(maxsize=64)
def _chosen(resources: Resources, size: SizeSettings | None) -> Resources:
    """Return the settings of one table: asked for by every one of thousands of stages, time and again."""
    return dataclasses.replace(resources, sizes=()).changed(**(size.given if size else {}))


def load_profile(name: str, **overrides: Any) -> Resources:
    """Read the profile `name`, or the TOML file that it names; raise `UserError` when there is none or it is wrong."""
    path = profile_path(name)
    try:
        return _parsed(tomllib.loads(path.read_text()), name=path.stem, overrides=overrides)
    except (tomllib.TOMLDecodeError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"profile {path.name}: {error}; the tables of a profile are {_tables()}") from error


def _parsed(settings: dict[str, Any], *, name: str, overrides: Mapping[str, Any]) -> Resources:
    sizes = settings.pop("sizes", [])
    kinds = {**PARTS, "judging": JudgeEndpoint}
    # A setting may stand by itself: its name says to which part it belongs.
    alone = {key: settings.pop(key) for key in list(settings) if key in _PART_OF}
    if wrong := [f"{key} = {table} is no table" for key, table in settings.items() if not isinstance(table, dict)]:
        raise ValueError(", ".join(wrong))
    parts: dict[str, Any] = {key: kinds[key](**table) if key in kinds else table for key, table in settings.items()}
    # What is chosen on the command line holds for every size of model.
    tables = ({key: value for key, value in table.items() if key not in overrides} for table in sizes)
    resources = Resources(name=name, sizes=tuple(SizeSettings(**table) for table in tables), **parts)
    return resources.changed(**alone | dict(overrides))


def _tables() -> str:
    names = {part: ", ".join(item.name for item in dataclasses.fields(kind)) for part, kind in PARTS.items()}
    return ", ".join(f"[{part}] ({listed})" for part, listed in names.items()) + ", [judging] and [[sizes]]"


def profile_path(name: str) -> Path:
    """Return the file of a profile; raise `UserError` when there is none."""
    path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.toml"))) or "none"
        raise UserError(f"unknown profile {name!r}: known are {known}, or give the path of a .toml file")
    return path
