"""Results that nobody computed: records and rows of chosen numbers, to test what reads results."""

import random
from collections.abc import Callable, Iterable
from typing import Any

from toy import INLINE

from cong.data import write_rows
from cong.evaluation import COMPARISONS, EVALUATION, Compare, Downstream, Evaluate
from cong.evaluation.rating import Ratings, RatingSample, SimulatedRaters
from cong.experiment import Cell, Results, collect
from cong.graph.plan import make_plan
from cong.graph.runner import Runner
from cong.graph.stage import Stage, topological
from cong.graph.store import Store
from cong.synthetic.world import World, make_prompts

PROMPTS = 12
RUN = (RatingSample, SimulatedRaters, Ratings)
"""Stages that are light enough to be run on the others' rows."""
Reward = Callable[[dict[str, Any]], float]
"""From a cell's axes to its mean reward."""


def publish(cells: Iterable[Cell], store: Store, *, reward: Reward) -> Results:
    """Finish the cells' own stages: rewards as told by the first cell of each, the same noise for every prompt."""
    found = list(cells)
    axes: dict[str, dict[str, Any]] = {}
    for cell in found:
        axes.setdefault(cell.stage.fingerprint, dict(cell.axes))
    for stage in _final(found):
        if not isinstance(stage, RUN):
            directory = store.directory(stage)
            directory.mkdir(parents=True)
            results = _write(stage, directory, axes.get(stage.fingerprint, {}), reward)
            seconds = 1.0 + len(stage.inputs)
            times = {"seconds": seconds, "gpu_seconds": 0.0, "cpu_seconds_reserved": seconds}
            named = {"stage": stage.name, "label": stage.label(), "fingerprint": stage.fingerprint}
            store.publish(stage, {**named, **times, "results": results})
    rated = {cell.name: cell.stage for cell in found if isinstance(cell.stage, RUN)}
    Runner(store=store, resources=INLINE).run(make_plan(rated, store))
    return collect(found, store)


def _final(cells: list[Cell]) -> list[Stage]:
    """Return the cells' stages, and of those that are run what they read."""
    stages = {cell.stage.fingerprint: cell.stage for cell in cells}
    for stage in topological([stage for stage in stages.values() if isinstance(stage, RUN)]):
        if isinstance(stage, Compare):
            stages[stage.fingerprint] = stage
    return list(stages.values())


def _write(stage: Stage, directory, axes: dict[str, Any], reward: Reward) -> dict[str, Any]:
    if isinstance(stage, Evaluate):
        mean, seed = reward(axes), axes.get("seed", 0)
        rows = [_evaluated(mean, seed, number) for number in range(PROMPTS)]
        write_rows(directory / EVALUATION, rows)
        measures = ("reward", "win_rate", "tokens", "implicit_reward", "implicit_per_token")
        return {key: value for name in measures for key, value in _summary(name, rows).items()}
    if isinstance(stage, Compare):
        world = World(seed=axes.get("seed", 0))
        prompts = make_prompts(world, split="heldout", count=PROMPTS, seed=0)
        write_rows(directory / COMPARISONS, [_compared(row, reward(axes)) for row in prompts])
        return {"wr": 10 * reward(axes), "lc": 9 * reward(axes), "wr_se": 1.0, "lc_se": 1.0}
    if isinstance(stage, Downstream):
        figures = {task.name: reward(axes) for task in stage.tasks}
        return {**figures, **{f"{name}_se": 0.01 for name in figures}, "average": reward(axes)}
    return {"heldout_loss": 1.0, "parameters": 1e5, "chosen_better": 0.5}


def _evaluated(mean: float, seed: int, number: int) -> dict[str, Any]:
    noise = random.Random(f"{seed}/{number}").gauss(0, 0.5)
    return {
        "prompt_id": f"p{number}",
        "prompt": f"prompt {number}",
        "response": f"response {mean:.2f}",
        "reward": mean + noise,
        "win_rate": 0.5,
        "tokens": 20.0,
        "implicit_reward": 2 * mean + noise,
        "implicit_per_token": 0.1 * mean,
    }


def _summary(name: str, rows: list[dict[str, Any]]) -> dict[str, float]:
    mean = sum(row[name] for row in rows) / len(rows)
    return {name: mean, f"{name}_se": 0.1, f"{name}_low": mean - 0.2, f"{name}_high": mean + 0.2}


def _compared(prompt: dict[str, Any], mean: float) -> dict[str, Any]:
    better = random.Random(f"{prompt['prompt_id']}").random() < mean / 3
    return {
        "prompt_id": prompt["prompt_id"],
        "prompt": prompt["prompt"],
        "response": "sure one done",
        "baseline_response": "maybe two",
        "preference": 2.0 if better else 1.0,
        "labels": [],
        "input_tokens": 0,
        "output_tokens": 0,
        "cost": 0.0,
        "cached": False,
        "error": None,
    }
