"""What a reward is: a value that gives responses their rewards. `Score` is the stage that asks it.

    @dataclass(frozen=True, kw_only=True)
    class Brevity(Reward):
        '''Minus the number of words.'''

        def of(self, row):
            return -float(len(row["response"].split()))

    Score(responses=responses, judge=Brevity())

A reward of one's own needs nothing else. One that holds models inherits from `ModelReward`, and says which models, and
what scores rows with them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from cong.data import REFERENCE, Row, check_failures
from cong.data.map_rows import Worker, map_rows
from cong.graph.demand import Demand
from cong.graph.need import Need
from cong.graph.resources import Resources
from cong.graph.stage import Context
from cong.graph.work import Work
from cong.models import Model, check_model, model_dir
from cong.models.work import FORWARD, ROW_TOKENS, arithmetic_seconds
from cong.scoring.scored import KEPT, UNCHECKED, scored


@dataclass(frozen=True, kw_only=True)
class Reward:
    """Gives every response a reward by itself, in this process. Subclasses are values like stages: their fields are
    their identity, and `__str__` is their name for a reader."""

    COLUMNS: ClassVar[tuple[str, ...]] = KEPT
    """What is read of the responses, beside what is carried with their prompts."""
    NEEDS_REFERENCE: ClassVar[bool] = False
    """Whether a row without a reference has no reward."""

    def __str__(self) -> str:
        return type(self).__name__.lower()

    def of(self, row: Row) -> float:
        """Return the reward of a row with `prompt`, `response` and `finish_reason`; what it raises is its error."""
        raise NotImplementedError(f"{type(self).__name__} has no method `of`, by which a response gets its reward")

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that it holds, the aligned one of a pair first."""
        return ()

    def check(self) -> None:
        """Raise `UserError` for what can be seen to be missing before anything runs."""

    def demand(self, resources: Resources) -> Demand:
        """Return what scoring occupies."""
        return Demand(cpus=1)

    def need(self, *, new_tokens: int, resources: Resources) -> Need | None:
        """Return the memory of one process that scores responses of so many tokens; None where no model is held."""
        return None

    def work(self, *, rows: int, resources: Resources) -> Work:
        """Return how much the scoring of rows takes, but for the disk."""
        operations = FORWARD * rows * ROW_TOKENS
        seconds = (arithmetic_seconds(model, operations=operations, resources=resources) for model in self.models)
        return Work(gpu_seconds=sum(seconds))

    def score(self, ctx: Context, rows: Sequence[Row], *, max_error_share: float) -> list[Row]:
        """Return the rows with their rewards; raise `RuntimeError` when more than the allowed share has none."""
        found = [self.row(row) for row in rows]
        check_failures([new for new, row in zip(found, rows, strict=True) if not row["error"]], max_error_share)
        return found

    def row(self, row: Row) -> Row:
        """Return a row with its reward, or with why it has none."""
        if row["error"] is not None:
            return scored(row, None)
        if self.NEEDS_REFERENCE and not row.get(REFERENCE):
            return scored(row, None, error=UNCHECKED)
        try:
            return scored(row, self.of(row))
        except NotImplementedError:
            raise
        except Exception as error:
            # It is the user's code, and one response must not end the scoring of the others.
            return scored(row, None, error=f"{type(error).__name__}: {error}")


@dataclass(frozen=True, kw_only=True)
class ModelReward(Reward, ABC):
    """Gives rewards by models: in Ray Data actors, or in the stage's process, as the profile says."""

    @property
    @abstractmethod
    def models(self) -> tuple[Model, ...]:
        """The models that it holds, the aligned one of a pair first."""

    @abstractmethod
    def worker(self, directories: tuple[Path, ...], resources: Resources) -> Worker:
        """Return what scores rows; `directories` are those of the models' checkpoints."""

    def check(self) -> None:
        for model in self.models:
            check_model(model)

    def directories(self, ctx: Context) -> tuple[Path, ...]:
        """Return the directories of the models' checkpoints."""
        return tuple(model_dir(ctx, model) for model in self.models)

    def demand(self, resources: Resources) -> Demand:
        return resources.generation_demand()

    def score(self, ctx: Context, rows: Sequence[Row], *, max_error_share: float) -> list[Row]:
        make = partial(self.worker, self.directories(ctx), ctx.resources)
        return map_rows(ctx, make, list(rows), max_error_share=max_error_share)
