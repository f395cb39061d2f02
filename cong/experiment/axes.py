"""What is searched: axes with bounds (`alpha=0:1`, `beta=0.01:1:log`) or values (`weak=1.5B,3B`), and the searcher.

axis = parse_axis(experiment, "beta=0.01:1:log")
Search(axes=(axis,), measure="reward", lowest=False, trials=20, searcher="optuna", seed=0)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cong.errors import UserError, require
from cong.experiment.file import Experiment, parse
from cong.experiment.grid import Point

Searcher = Literal["random", "optuna"]
# Numbers are cut, so that a point can be typed and lies at a place that its name states.
_DIGITS = 3


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Where one axis is searched: between two bounds, or among values."""

    name: str
    values: tuple[Any, ...]
    """The two bounds, or every value."""
    bounded: bool = False
    logarithmic: bool = False

    def domain(self) -> Any:
        """Return the axis as Ray Tune describes it."""
        from ray import tune as typeless

        tune: Any = typeless
        if not self.bounded:
            return tune.choice(list(self.values))
        low, high = self.values
        if isinstance(low, int):
            return tune.lograndint(low, high + 1) if self.logarithmic else tune.randint(low, high + 1)
        return tune.loguniform(low, high) if self.logarithmic else tune.uniform(low, high)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched, for what, and how often."""

    axes: tuple[Axis, ...]
    measure: str
    lowest: bool
    """Whether the lowest value is the best."""
    trials: int
    searcher: Searcher
    seed: int

    def __post_init__(self) -> None:
        if self.searcher not in get_args(Searcher):
            raise UserError(f"unknown searcher {self.searcher!r}: known are {', '.join(get_args(Searcher))}")
        if self.searcher == "optuna":
            require("optuna", extra="search")
        if self.trials < 1:
            raise UserError(f"--trials {self.trials}: at least 1")
        if not self.axes:
            raise UserError("nothing to search: give --over AXIS=LOW:HIGH at least once")
        if len(set(self.names)) < len(self.names):
            raise UserError(f"an axis is given twice with --over: {', '.join(self.names)}")

    @property
    def mode(self) -> Literal["min", "max"]:
        """Return the direction in Ray Tune's words."""
        return "min" if self.lowest else "max"

    @property
    def corners(self) -> tuple[str, ...]:
        """Return the ends of all axes as a grid: what cells at these have in common, every point has."""
        return tuple(f"{axis.name}={','.join(str(value) for value in axis.values)}" for axis in self.axes)

    @property
    def names(self) -> list[str]:
        """Return the names of the axes."""
        return [axis.name for axis in self.axes]

    def algorithm(self, known: Sequence[Point]) -> Any:
        """Return the searcher; it learns of the `known` points of an earlier run first, which are in the store."""
        if self.searcher == "random":
            from ray.tune.search.basic_variant import BasicVariantGenerator

            # The sequence begins with the points that are known.
            return BasicVariantGenerator(random_state=self.seed)
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # With its first seed it would propose the known points once more.
        return OptunaSearch(points_to_evaluate=list(known) or None, seed=self.seed + len(known))


def parse_axis(experiment: Experiment, text: str) -> Axis:
    """Read `AXIS=LOW:HIGH`, `AXIS=LOW:HIGH:log` or `AXIS=VALUE,VALUE`; raise `UserError` for what is none of these."""
    name, equals, values = text.partition("=")
    if not equals:
        raise UserError(f"--over {text}: write AXIS=LOW:HIGH, AXIS=LOW:HIGH:log or AXIS=VALUE,VALUE")
    annotation = experiment.axis(name, given=f"--over {text}").annotation
    try:
        return _axis(name, values, annotation)
    except ValueError as error:
        raise UserError(f"--over {text}: {error}") from error


def _axis(name: str, text: str, annotation: Any) -> Axis:
    if ":" not in text:
        values = tuple(parse(value, annotation) for value in text.split(","))
        if len(set(values)) < max(2, len(values)):
            raise ValueError("a search needs at least two different values")
        return Axis(name=name, values=values)
    low, high, *scale = text.split(":")
    if scale not in ([], ["log"]):
        raise ValueError(f"{text!r} is not LOW:HIGH or LOW:HIGH:log")
    bounds = parse(low, annotation), parse(high, annotation)
    if not all(isinstance(bound, int | float) for bound in bounds):
        raise ValueError("an axis without numbers is searched among values, such as 3B,7B")
    if not bounds[0] < bounds[1]:
        raise ValueError(f"the lower bound {low} is not below the upper bound {high}")
    if scale and bounds[0] <= 0:
        raise ValueError(f"a logarithmic axis begins above 0, not at {low}")
    return Axis(name=name, values=bounds, bounded=True, logarithmic=bool(scale))


def rounded(config: Mapping[str, Any]) -> Point:
    """Return a searcher's point with its numbers cut to three significant digits."""
    return {name: float(f"{v:.{_DIGITS}g}") if isinstance(v, float) else v for name, v in config.items()}
