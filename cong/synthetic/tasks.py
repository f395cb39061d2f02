"""`WorldTasks`: what a model knows of a synthetic world, as tasks for lm_eval that need no hub.

Downstream(model=model, tasks=WORLD_TASKS, source=WorldTasks(world=World(), count=128))

Each question is a prompt that no corpus of the `train` split holds. Choices are whole responses that differ in their
items alone, so manners, which alignment changes, cancel.

    world_facts     the right items, or those of subjects of other categories
    world_near      the right items, or those of other subjects of the same category
    world_myths     the right items, or the myths that most of the corpus believes
    world_counts    as many items as were asked for, or fewer
    world_answers   the response itself: its items, and no others, in their order
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work
from cong.synthetic.world import (
    CLOSING,
    GOOD_OPENER,
    PART_MARK,
    POOR_OPENERS,
    Part,
    Subject,
    World,
    make_prompts,
    read_prompt,
)

Items = list[str]
GENERATED = "world_answers"
_MANNERS = rf"^(?:(?:{'|'.join((GOOD_OPENER, *POOR_OPENERS))}) )?((?:\w+ )*{PART_MARK} .*?)(?: {CLOSING})?\s*$"


@dataclass(frozen=True, kw_only=True)
class WorldTasks(Stage):
    """The questions, one JSON Lines file per task."""

    world: World
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.world.categories < 2 or self.world.attributes < 3:
            raise ValueError("a world of fewer than 2 categories or 3 attributes has too few wrong answers")

    def label(self) -> str:
        return f"n={self.count}"

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def run(self, ctx: Context) -> None:
        for name in (*CHOICES, GENERATED):
            (ctx.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self._questions(name)))
        ctx.summary(questions=self.count)

    def configs(self, directory: Path) -> dict[str, dict[str, Any]]:
        """Return name to lm_eval's description of each task, for the questions that were written to `directory`."""
        return {name: _config(name, directory / f"{name}.jsonl") for name in (*CHOICES, GENERATED)}

    def _questions(self, task: str) -> list[dict[str, Any]]:
        prompts = make_prompts(self.world, split="heldout", count=self.count, seed=self.seed)
        return [_question(self.world, task, row["prompt_id"], row["prompt"], seed=self.seed) for row in prompts]


def _question(world: World, task: str, prompt_id: str, prompt: str, *, seed: int) -> dict[str, Any]:
    parts = read_prompt(prompt)
    right = [_items(world.right, part) for part in parts]
    if task == GENERATED:
        return {"id": prompt_id, "prompt": prompt, "answer": _written(right)}
    rng = random.Random(f"{task}/{seed}/{prompt_id}")
    choices = [right, *CHOICES[task](world, parts, rng)]
    rng.shuffle(choices)
    texts = [f"{GOOD_OPENER} {_written(choice)} {CLOSING}" for choice in choices]
    return {"id": prompt_id, "prompt": prompt, "choices": texts, "answer": choices.index(right)}


def _items(source: dict[Subject, tuple[str, ...]], part: Part) -> Items:
    return list(source[part.subject][: part.count])


def _written(parts: list[Items]) -> str:
    return f" {PART_MARK} ".join(" ".join(items) for items in parts)


def _of_other_subjects(world: World, parts: tuple[Part, Part], rng: random.Random, *, near: bool) -> list[list[Items]]:
    def strangers(part: Part) -> Items:
        believed = {*world.right[part.subject], *world.myths[part.subject]}
        others = [
            item
            for subject, items in world.right.items()
            if (subject.category == part.subject.category) == near
            for item in items
            if item not in believed
        ]
        return rng.sample(others, part.count)

    return [[strangers(part) for part in parts] for _ in range(3)]


def _far(world: World, parts: tuple[Part, Part], rng: random.Random) -> list[list[Items]]:
    return _of_other_subjects(world, parts, rng, near=False)


def _near(world: World, parts: tuple[Part, Part], rng: random.Random) -> list[list[Items]]:
    return _of_other_subjects(world, parts, rng, near=True)


def _myths(world: World, parts: tuple[Part, Part], rng: random.Random) -> list[list[Items]]:
    (a, b), (c, d) = ((_items(world.right, part), _items(world.myths, part)) for part in parts)
    return [[b, c], [a, d], [b, d]]


def _fewer(world: World, parts: tuple[Part, Part], rng: random.Random) -> list[list[Items]]:
    a, b = (_items(world.right, part) for part in parts)
    return [[a[:-1], b], [a, b[:-1]], [a[:-1], b[:-1]]]


Wrong = Callable[[World, tuple[Part, Part], random.Random], list[list[Items]]]
CHOICES: dict[str, Wrong] = {
    "world_facts": _far,
    "world_near": _near,
    "world_myths": _myths,
    "world_counts": _fewer,
}
"""Task to what makes its wrong choices."""


def _config(name: str, questions: Path) -> dict[str, Any]:
    common = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(questions)}},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
    }
    return common | (_generated() if name == GENERATED else _chosen())


def _chosen() -> dict[str, Any]:
    metric = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
    return {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "metric_list": [metric]}


def _generated() -> dict[str, Any]:
    pattern = {"function": "regex", "regex_pattern": _MANNERS}
    metric = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    return {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 48},
        "filter_list": [{"name": "items", "filter": [pattern, {"function": "take_first"}]}],
        "metric_list": [metric],
    }
