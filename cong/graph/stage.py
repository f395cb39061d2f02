"""A stage is a value: a frozen dataclass whose fields are its whole identity, other stages among them.

    @dataclass(frozen=True, kw_only=True)
    class Double(Stage):
        source: Stage
        factor: float = 2.0

        def run(self, ctx):
            number = float((ctx.path(self.source) / "number.txt").read_text())
            (ctx.out / "number.txt").write_text(str(self.factor * number))

Building one imports nothing heavy and reads nothing; `run` does the work and writes into `ctx.out`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

from cong.graph import fingerprint as fp
from cong.graph.demand import Demand
from cong.graph.journal import append_metrics, write_progress
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.graph.work import Usage, Work

SCRATCH = ".scratch"
LONGEST_NAME = 255
"""Bytes of a name in a directory, on nearly every file system."""
_LONG_LABEL = 120


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a running stage is given."""

    out: Path
    """The stage's own directory, which all its processes see. It survives a kill: what a rerun needs lies there."""
    resources: Resources
    root: Path
    """The store's own directory, for what its stages share."""
    locate: Callable[["Stage"], Path]
    results: dict[str, Any] = field(default_factory=dict[str, Any])

    def path(self, stage: "Stage") -> Path:
        """Return the directory of a finished input."""
        return self.locate(stage)

    @property
    def scratch(self) -> Path:
        """Directory for unfinished work: it survives a kill, is no output, and goes when the stage is complete."""
        path = self.out / SCRATCH
        path.mkdir(exist_ok=True)
        return path

    @property
    def metrics_path(self) -> Path:
        """File of the live curves: hand it to workers, which call `append_metrics` on it."""
        return self.out / "metrics.jsonl"

    @property
    def progress_path(self) -> Path:
        """File of the progress: hand it to workers, which call `write_progress` on it."""
        return self.out / "progress.json"

    def log(self, step: int, **metrics: float) -> None:
        """Append one point to the live curves."""
        append_metrics(self.metrics_path, step, **metrics)

    def progress(
        self, *, done: float, total: float, unit: str, tokens: int | None = None, finished_tokens: int = 0
    ) -> None:
        """Say how much is done; with `tokens`, those decoded so far, and `finished_tokens`, those of the done units."""
        write_progress(
            self.progress_path, done=done, total=total, unit=unit, tokens=tokens, finished_tokens=finished_tokens
        )

    def summary(self, **values: Any) -> None:
        """Set results that go into the record and into the tracker."""
        self.results.update(values)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Base of all stages. Subclasses add fields and `run`; `VERSION` is raised when the same fields mean new output."""

    VERSION: ClassVar[int] = 1
    GIVEN: ClassVar[bool] = False
    """Whether it makes what methods start from: elsewhere such a checkpoint is downloaded, and costs nothing."""

    def run(self, ctx: Context) -> None:
        """Compute the stage and write its output into `ctx.out`."""
        raise NotImplementedError

    def label(self) -> str:
        """Return what distinguishes this stage for a reader, such as `alpha=0.3`.

        It is part of the directory's name, so it may depend on nothing but the identity.
        """
        return ""

    def check(self) -> None:
        """Look at what lies outside of the graph (files, checkpoints) before anything runs; raise `UserError`."""

    def check_execution(self, resources: Resources) -> None:
        """Look at whether the stage can be run so where it is about to run; raise `UserError`."""

    def demand(self, resources: Resources) -> Demand:
        """Return what the stage occupies while it runs."""
        return Demand(cpus=1)

    def parameters(self) -> int | None:
        """Return the parameters of the largest model that the stage holds, None without one or where it is unknown."""
        return None

    def execution(self, resources: Resources) -> Resources:
        """Return what a profile sets for models of this stage's size."""
        return resources.for_size(self.parameters())

    def work(self, resources: Resources) -> Work:
        """Return how much the stage takes, estimated; `LITTLE` for what runs on CPUs in no time."""
        raise NotImplementedError(f"{self.name} has no method `work`, by which a plan estimates hours and disk")

    def usage(self, results: Mapping[str, Any]) -> Usage:
        """Return what a finished run used beside time, by the results that it set."""
        return Usage()

    def row_count(self) -> int:
        """Return how many rows the stage writes, or is trained on, as far as that is known before it runs; else 0."""
        return 0

    def prompt_count(self) -> int:
        """Return how many different prompts the rows have, as far as that is known; else 0."""
        return self.row_count()

    @property
    def new_tokens(self) -> int | None:
        """How many tokens a response of the stage has at most, None where that is not known or there are none."""
        return None

    @property
    def evaluated_model(self) -> Any:
        """The model whose responses the stage evaluates, or which it makes; None where there is no single one."""
        return None

    @property
    def trainings(self) -> tuple["Stage", ...]:
        """The trainings that lead to the model that the stage makes, with the passes that their losses need."""
        return ()

    def memory(self, resources: Resources) -> Need | None:
        """Return the bytes that one of the stage's processes needs, None where no model is held or it is unknown."""
        return None

    @property
    def companions(self) -> tuple["Stage", ...]:
        """Return the stages whose output whoever reads this one's needs too, such as the base of an adapter."""
        return ()

    @property
    def name(self) -> str:
        """Return the name of the stage's class."""
        return type(self).__name__

    @cached_property
    def fingerprint(self) -> str:
        """Return 64 hexadecimal digits over name, version, every field and the fingerprints of the inputs."""
        return fp.digest({"stage": self.name, "version": self.VERSION, "fields": fp.fields_of(self)})

    def identity(self) -> Any:
        """Return what stands for this stage inside another's identity."""
        return {"stage": self.name, "fingerprint": self.fingerprint}

    @property
    def slug(self) -> str:
        """Return the directory's name: `{label}-{first 8 digits of the fingerprint}`; a long label is cut."""
        label, digits = _safe(self.label()), self.fingerprint[:8]
        name = "-".join(filter(None, [label, digits]))
        return name if len(name.encode()) <= LONGEST_NAME else f"{clipped(label, _LONG_LABEL)}-{digits}"

    @property
    def title(self) -> str:
        """Return name and label for a reader: `ContrastiveGenerate(alpha=0.3)`."""
        return f"{self.name}({self.label()})" if self.label() else self.name

    @cached_property
    def inputs(self) -> tuple["Stage", ...]:
        """Return the stages that this one reads, in the order of the fields, each once."""
        named = (stage for item in dataclasses.fields(self) for stage in stages_in(getattr(self, item.name)))
        found = (stage for one in named for stage in (one, *one.companions))
        return tuple({stage.fingerprint: stage for stage in found}.values())


def stages_in(value: Any) -> Iterator[Stage]:
    """Yield the stages inside `value`: itself, or those in its items or fields."""
    if isinstance(value, Stage):
        yield value
    elif isinstance(value, tuple | list):
        for item in cast(Sequence[Any], value):
            yield from stages_in(item)
    elif isinstance(value, dict):
        yield from stages_in(list(cast(dict[Any, Any], value).values()))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from stages_in([getattr(value, item.name) for item in dataclasses.fields(value)])


def values_in(values: Iterable[Any]) -> Iterator[Any]:
    """Yield every dataclass instance among values and within them, each object once."""
    queue, seen = list(values), set[int]()
    while queue:
        value = queue.pop()
        if id(value) not in seen:
            seen.add(id(value))
            yield value
            queue += parts_of(value)


def parts_of(value: Any) -> list[Any]:
    """Return the dataclass instances that are fields of a value, or lie in tuples and mappings of its fields."""
    queue: list[Any] = [getattr(value, item.name) for item in dataclasses.fields(value)]
    parts: list[Any] = []
    while queue:
        item = queue.pop()
        if isinstance(item, tuple | list):
            queue.extend(cast(Sequence[Any], item))
        elif isinstance(item, dict):
            queue.extend(cast(dict[Any, Any], item).values())
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            parts.append(item)
    return parts


def topological(targets: list[Stage]) -> list[Stage]:
    """Return the targets and all their inputs, each fingerprint once, inputs first."""
    order: dict[str, Stage] = {}
    stack = [(stage, False) for stage in reversed(targets)]
    while stack:
        stage, inputs_done = stack.pop()
        if stage.fingerprint in order:
            continue
        if inputs_done:
            order[stage.fingerprint] = stage
        else:
            stack.append((stage, True))
            stack.extend((item, False) for item in reversed(stage.inputs))
    return list(order.values())


def clipped(text: str, length: int) -> str:
    """Return the beginning of a text that has at most so many bytes."""
    return text.encode()[:length].decode(errors="ignore")


def _safe(label: str) -> str:
    return "".join(character if character.isalnum() or character in "=._,+-" else "_" for character in label)
