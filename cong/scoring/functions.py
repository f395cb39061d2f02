"""A Python function as a reward, of an experiment, a scale or any other file.

    def positive(prompt: str, response: str) -> float:
        return float("good" in response)

    Score(responses=responses, judge=FunctionReward(function=positive))
    reward_from("rewards.py:positive")                                     # the same from the command line

Its identity is its source, and what of its file it rests on (`cong.scoring.source`). It runs on CPUs: in as many actors
as decode, or in the stage's process where that is one. Files of users are pickled by value, so that nodes need not have
them; what they import must be installed there, or lie in the project that is submitted.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cong.data import Row
from cong.data.map_rows import map_rows
from cong.errors import UserError
from cong.graph.demand import Demand
from cong.graph.resources import Resources
from cong.graph.stage import Context
from cong.graph.userfiles import load_module
from cong.scoring.reward import Reward
from cong.scoring.scored import scored
from cong.scoring.source import source_of

Function = Callable[[str, str], float]
"""From a prompt (the text of its last turn) and a response to the reward."""


@dataclass(frozen=True, kw_only=True)
class FunctionReward(Reward):
    """What a function gives to prompt and response; what it raises, and NaN, is the error of that row alone."""

    function: Function

    def __post_init__(self) -> None:
        # Now, for a mistake in it is one of whoever writes it down; and its file may be no file on another machine.
        _ = self._source
        _check_arguments(self.function)

    def identity(self) -> Any:
        """Return the source that the function rests on."""
        return {"class": "FunctionReward", **self._source}

    @functools.cached_property
    def _source(self) -> dict[str, Any]:
        return source_of(self.function)

    def __str__(self) -> str:
        return inspect.unwrap(self.function).__name__

    def of(self, row: Row) -> float:
        """Return the function's reward of a row."""
        value: Any = self.function(row["prompt"], row["response"])
        if value is None or isinstance(value, str):
            raise TypeError(f"{self} returned {value!r}, which is no number")
        return float(value)

    def demand(self, resources: Resources) -> Demand:
        return _on_cpus(resources).generation_demand()

    def score(self, ctx: Context, rows: Sequence[Row], *, max_error_share: float) -> list[Row]:
        good = [row for row in rows if row["error"] is None]
        here = dataclasses.replace(ctx, resources=_on_cpus(ctx.resources))
        found = map_rows(here, partial(_Rows, self), good, max_error_share=max_error_share)
        by_id = {row["row_id"]: row for row in found}
        return [by_id[row["row_id"]] if row["error"] is None else scored(row, None) for row in rows]


class _Rows:
    """Worker that calls the function."""

    def __init__(self, reward: Reward) -> None:
        self._reward = reward

    def process(self, rows: list[Row]) -> Iterator[Row]:
        """Yield every row with its reward."""
        yield from map(self._reward.row, rows)


def reward_from(text: str) -> FunctionReward:
    """Return the reward that `FILE.py:FUNCTION` names; raise `UserError` when there is none."""
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py") or not name:
        raise UserError(f"{text}: a reward is written FILE.py:FUNCTION, such as rewards.py:positive")
    module = load_module(Path(file), kind="file of rewards")
    function = getattr(module, name, None)
    if function is None:
        functions = (value for value in vars(module).values() if inspect.isfunction(value))
        own = (one.__name__ for one in functions if getattr(module, one.__name__, None) is one)
        raise UserError(f"{file} has no function {name}; it has {', '.join(own) or 'none'}")
    return FunctionReward(function=function)


def _check_arguments(function: Function) -> None:
    try:
        inspect.signature(function).bind("prompt", "response")
    except TypeError as error:
        name, given = inspect.unwrap(function).__name__, inspect.signature(function)
        raise UserError(f"{name}{given} cannot be called with a prompt and a response: {error}") from error


@functools.lru_cache(maxsize=64)
def _on_cpus(resources: Resources) -> Resources:
    """Return the settings for a function without a GPU: asked for by every one of thousands of stages."""
    actors = resources.decoding.actors
    return resources.changed(
        device="cpu", cuda_graphs=False, threads=1, tensor_parallel=1, actors=actors if actors > 1 else 0
    )
