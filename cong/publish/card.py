"""The model card of an exported model: what it is, how it was made, and what was measured of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.experiment import value_text
from cong.graph.store import RECORD, SUCCESS
from cong.publish.lineage import Step, lineage
from cong.publish.trained import TrainedModel
from cong.run.status import RunState, runs

CARD = "README.md"
_METHOD_AXES = ("method", "alpha", "beta")


def write_card(model: TrainedModel, directory: Path, *, adapter: bool) -> None:
    """Write the card beside the weights of an exported model."""
    (directory / CARD).write_text(card(model, adapter=adapter), encoding="utf-8")


def card(model: TrainedModel, *, adapter: bool) -> str:
    """Return the card as Markdown with the front matter that the hub reads."""
    steps = lineage(model)
    origin = list(model.ancestors())[-1].origin
    parts = [
        f"---\n{_front_matter(origin, adapter=adapter)}\n---",
        f"# {model.record['stage']} of {_origin_name(origin)}",
        _summary(model, adapter=adapter),
        "## How it was made\n\n" + _table(("stage", "settings", "given", "rows"), map(_step_row, steps)),
        _results(model),
        "## Before you use it\n\nThe licences of the base model and of the data hold for this model too. Nothing was "
        "measured of it but what stands above: neither its safety nor its knowledge.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(origin: dict[str, Any], *, adapter: bool) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        base_model=origin.get("repo"),
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["cong", "weak-to-strong-generalization"],
    )
    return data.to_yaml()


def _origin_name(origin: dict[str, Any]) -> str:
    return origin.get("repo") or ("a local checkpoint" if "checkpoint" in origin else "a synthetic model")


def _summary(model: TrainedModel, *, adapter: bool) -> str:
    record = model.record
    kind = "LoRA adapter" if adapter else "model, its adapter merged in," if model.is_adapter else "model"
    versions = record["versions"]
    used = ", ".join(f"{name} {versions[name]}" for name in ("transformers", "trl", "torch") if name in versions)
    return (
        f"A {kind} trained by a method of Contrastive Weak-to-Strong Generalization or one that it is compared with: "
        f"the table below says how. Written by `cong` {versions['cong']} ({used}) from the stage `{model.place}`, "
        f"fingerprint `{model.fingerprint}`."
    )


def _step_row(step: Step) -> tuple[str, ...]:
    rows = next((step.record["results"][name] for name in ("rows", "pairs", "prompts")
                 if name in step.record["results"]), "")  # fmt: skip
    return f"`{step.place}`", step.settings, "; ".join(step.given), str(rows)


def _table(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(text.replace('|', '/') for text in line)} |" for line in lines)


def _results(model: TrainedModel) -> str:
    rows = list(dict.fromkeys(row for run in _runs(model.root) for row in _run_rows(run, model)))
    if not rows:
        return ""
    note = "Mean reward on held-out prompts with its 95 % interval (bootstrap over prompts)."
    return f"## Results\n\n{_table(('', 'reward', 'prompts'), iter(rows))}\n\n{note}"


def _runs(root: Path) -> list[RunState]:
    try:
        return runs(root)
    except UserError:
        return []


def _run_rows(run: RunState, model: TrainedModel) -> Iterator[tuple[str, ...]]:
    """Yield the cells that evaluate the model, and beside them those of the models with which it began."""
    own = [cell for cell in run.record["cells"] if _place(run, cell) == model.place]
    before = {one.place for one in model.ancestors()} | {None}
    settings = [{k: v for k, v in cell["axes"].items() if k not in _METHOD_AXES} for cell in own]
    for cell in run.record["cells"]:
        rest = {k: v for k, v in cell["axes"].items() if k not in _METHOD_AXES}
        if _place(run, cell) in before and rest in settings:
            yield from _row(run, cell, bold=cell in own)


def _place(run: RunState, cell: dict[str, Any]) -> str | None:
    number = cell.get("model")
    return None if number is None else run.record["stages"][number]["directory"]


def _row(run: RunState, cell: dict[str, Any], *, bold: bool) -> Iterator[tuple[str, ...]]:
    directory = run.stages[cell["stage"]].directory
    if not (directory / SUCCESS).exists():
        return
    found = json.loads((directory / RECORD).read_text())["results"]
    if "reward_low" in found:
        name = ", ".join(f"{key} {value_text(value)}" for key, value in cell["axes"].items())
        reward = f"{found['reward']:.3f} [{found['reward_low']:.3f}, {found['reward_high']:.3f}]"
        yield f"**{name}**" if bold else name, reward, str(found["prompts"])
