"""Stages of numbers: the graph can be tested without a model."""

import os
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cong.data import Row
from cong.graph.demand import Demand
from cong.graph.journal import Progress, read_progress
from cong.graph.plan import make_plan
from cong.graph.resources import Resources
from cong.graph.runner import Runner
from cong.graph.stage import Context, Stage
from cong.graph.store import StageStore, Store

INLINE = Resources(name="inline").changed(ray=False, actors=0)


@dataclass(frozen=True, kw_only=True)
class Number(Stage):
    """Writes a number, and leaves a mark for every time it ran."""

    value: float = 1.0

    def label(self) -> str:
        return f"value={self.value:g}"

    def run(self, ctx: Context) -> None:
        mark(ctx)
        (ctx.out / "number.txt").write_text(str(self.value))
        ctx.summary(number=self.value)


@dataclass(frozen=True, kw_only=True)
class Sum(Stage):
    """Adds the numbers of its inputs."""

    parts: tuple[Stage, ...]

    def run(self, ctx: Context) -> None:
        mark(ctx)
        total = sum(read(ctx.path(part)) for part in self.parts)
        (ctx.out / "number.txt").write_text(str(total))
        ctx.summary(number=total)


@dataclass(frozen=True, kw_only=True)
class Slow(Number):
    """Takes its time, so that another process comes meanwhile."""

    seconds: float = 1.0

    def run(self, ctx: Context) -> None:
        time.sleep(self.seconds)
        super().run(ctx)


@dataclass(frozen=True, kw_only=True)
class Broken(Stage):
    """Raises."""

    source: Stage | None = None

    def run(self, ctx: Context) -> None:
        raise RuntimeError("this stage is broken\nin two lines")


class Held:
    """Something that only the end of all references ends, and that refers to itself."""

    alive: ClassVar[weakref.WeakSet] = weakref.WeakSet()

    def __init__(self) -> None:
        self.itself = self
        self.alive.add(self)


@dataclass(frozen=True, kw_only=True)
class Holding(Stage):
    """Raises while it holds something."""

    def run(self, ctx: Context) -> None:
        held = Held()
        raise RuntimeError(f"broken with {len(held.alive)} held")


@dataclass(frozen=True, kw_only=True)
class Huge(Number):
    """Demands more than any machine has."""

    def demand(self, resources: Resources) -> Demand:
        return Demand(cpus=100_000)


def mark(ctx: Context) -> None:
    marks = ctx.out.parents[1] / "marks"
    marks.mkdir(exist_ok=True)
    (marks / f"{ctx.out.name}-{os.getpid()}-{time.time_ns()}").touch()


def runs(store: Store) -> int:
    return len(list((store.root / "marks").glob("*"))) if (store.root / "marks").exists() else 0


def read(directory: Path) -> float:
    return float((directory / "number.txt").read_text())


def run(store: StageStore, *targets: Stage, force: tuple[str, ...] = (), resources: Resources = INLINE) -> None:
    plan = make_plan({str(number): stage for number, stage in enumerate(targets)}, store, force=force)
    Runner(store=store, resources=resources).run(plan)


@dataclass
class Waiting:
    """Worker of `map_rows` that goes from one count of tokens to the next when its stage shows as many as it should.

    Only then does it finish rows, of 10 tokens each, which carry the progress that was shown last.
    """

    progress: Path
    steps: tuple[tuple[int, int], ...]
    """What it has decoded, and what the stage should show then."""
    decoded_tokens: int = 0

    def process(self, rows: list[Row]) -> Iterator[Row]:
        shown = None
        for decoded, tokens in self.steps:
            self.decoded_tokens = decoded
            shown = awaited(self.progress, tokens=tokens)
        yield from ({**row, "num_tokens": 10, "error": None, "shown": shown and vars(shown)} for row in rows)


def awaited(path: Path, *, tokens: int | None) -> Progress:
    """Wait until a progress file shows so many tokens."""
    until = time.monotonic() + 120
    while (found := read_progress(path)) is None or found.tokens != tokens:
        assert time.monotonic() < until, f"{tokens} tokens were awaited, there is {found}"
        time.sleep(0.02)
    return found
