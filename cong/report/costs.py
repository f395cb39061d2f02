"""What stages and methods cost: hours, tokens and judges' bills, by the records of the store.

    method_costs(results)                 # table 5: per method, what its training and its data took

Hours are reserved ones: a stage's seconds times the GPUs, or where none took part the CPU cores, that it held.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cong.experiment import Results
from cong.graph.stage import Stage, topological
from cong.graph.store import StageStore


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What some stages took together."""

    stages: int = 0
    seconds: float = 0.0
    """From start to end, one stage after the other."""
    gpu_seconds: float = 0.0
    cpu_seconds: float = 0.0
    tokens: int = 0
    """Generated, scored by a model or trained on; a training counts prompt and response in every epoch."""
    judge_tokens: int = 0
    dollars: float | None = None
    """What the answers of judges cost when they were made; None where no stage has a price."""

    @classmethod
    def of(cls, stages: Iterable[Stage], store: StageStore) -> "Cost":
        """Add up the records of those stages that are finished."""
        return sum((cost_of(stage, store.record(stage)) for stage in stages if store.is_complete(stage)), cls())

    def __add__(self, other: "Cost") -> "Cost":
        pairs = {item.name: (getattr(self, item.name), getattr(other, item.name)) for item in dataclasses.fields(self)}
        bills = [bill for bill in pairs.pop("dollars") if bill is not None]
        return Cost(**{name: one + two for name, (one, two) in pairs.items()}, dollars=sum(bills) if bills else None)

    def hours(self, unit: str) -> float:
        """Return `GPU`-hours or `CPU`-hours."""
        return (self.gpu_seconds if unit == "GPU" else self.cpu_seconds) / 3600


@dataclass(frozen=True, kw_only=True)
class MethodCost:
    """What a method's models cost, one entry per model: as a rule one per seed.

    Methods share stages: what two of them need counts whole in `needed` of both, and in `own` of neither.
    """

    method: str
    training: tuple[Cost, ...]
    """The trainings that lead from the starting model to this one, reference log-probabilities included: what table 5
    of the paper reports."""
    needed: tuple[Cost, ...]
    """All that the model needs: its trainings, their data, and the weak model's alignment."""
    own: tuple[Cost, ...]
    """The part of `needed` that no other method here needs. Nothing, where another method builds on this one."""


def method_costs(results: Results, *, by: str = "method") -> list[MethodCost]:
    """Return what the models behind the results cost, per value of the axis `by`, in their order.

        for cost in method_costs(select(results, family="qwen")):
            hours = [one.hours(unit_of(cost.training)) for one in cost.training]     # one value per seed

    A result's model is the one whose responses are evaluated; several results of one model count it once. Evaluation
    itself is no part of the costs, nor is the starting model. A method without a trained model, such as Base, has costs
    of 0; a result that evaluates no single model is left out.
    """
    if not results:
        return []
    store = results[0].store
    models = _models(results, by)
    needed = {method: [_needed(model) for model in found] for method, found in models.items()}
    everyone = {method: set().union(*map(set, found)) for method, found in needed.items()}
    costs = []
    for method, found in needed.items():
        others = set().union(*(stages for name, stages in everyone.items() if name != method))
        costs.append(
            MethodCost(
                method=method,
                training=tuple(Cost.of(_trainings(model), store) for model in models[method]),
                needed=tuple(Cost.of(stages.values(), store) for stages in found),
                own=tuple(Cost.of((s for key, s in stages.items() if key not in others), store) for stages in found),
            )
        )
    return costs


def unit_of(costs: Iterable[Cost]) -> str:
    """Return what hours are counted in: `GPU` as soon as one took part, else `CPU`."""
    return "GPU" if any(cost.gpu_seconds for cost in costs) else "CPU"


def _models(results: Results, by: str) -> dict[str, list[Any]]:
    """Return the distinct models of each method."""
    found: dict[str, dict[Any, Any]] = {}
    for result in results:
        model = result.cell.stage.evaluated_model
        if by in result.axes and model is not None:
            found.setdefault(str(result.axes[by]), {})[getattr(model, "fingerprint", model)] = model
    return {method: list(models.values()) for method, models in found.items()}


def _needed(model: Any) -> dict[str, Stage]:
    stages = topological([model]) if isinstance(model, Stage) else []
    return {stage.fingerprint: stage for stage in stages if not stage.GIVEN}


def trainings_of(stage: Stage) -> tuple[Stage, ...]:
    """Return the trainings behind the model whose responses a stage evaluates."""
    return _trainings(stage.evaluated_model)


def _trainings(model: Any) -> tuple[Stage, ...]:
    return model.trainings if isinstance(model, Stage) else ()


def cost_of(stage: Stage, record: Mapping[str, Any]) -> Cost:
    """Return what a finished stage took, by its record."""
    used = stage.usage(record["results"])
    return Cost(
        stages=1,
        seconds=record["seconds"],
        gpu_seconds=record["gpu_seconds"],
        cpu_seconds=record["cpu_seconds_reserved"],
        tokens=used.tokens,
        judge_tokens=used.judge_tokens,
        dollars=used.dollars,
    )
