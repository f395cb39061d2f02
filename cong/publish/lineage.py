"""What a model of a store was made of: every stage that led to it, read from the records, inputs first."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cong.experiment import value_text
from cong.graph.store import RECORD
from cong.publish.trained import TrainedModel


@dataclass(frozen=True, kw_only=True)
class Step:
    """A stage of a lineage."""

    place: str
    record: Mapping[str, Any]

    @property
    def settings(self) -> str:
        """Return its numbers and names: what it was set to, and not what it read."""
        chosen = {key: value for key, value in self.record["config"].items() if isinstance(value, int | float | str)}
        return ", ".join(f"{key} {value_text(value)}" for key, value in chosen.items())

    @property
    def given(self) -> list[str]:
        """Return what it read that no stage made: checkpoints, files, datasets."""
        return [text for value in self.record["config"].values() if (text := given_name(value))]


def lineage(model: TrainedModel) -> list[Step]:
    """Return the stages that led to a model, inputs first, itself last."""
    steps: dict[str, Step] = {}
    _collect(model.root, model.place, steps)
    return list(steps.values())


def _collect(root: Path, place: str, steps: dict[str, Step]) -> None:
    path = root / place / RECORD
    if place in steps or not path.is_file():
        return
    record = json.loads(path.read_text())
    for source in record["inputs"]:
        _collect(root, source, steps)
    steps[place] = Step(place=place, record=record)


def given_name(value: Any) -> str:
    """Return a name for a checkpoint or a file in a recorded configuration, nothing for other values."""
    if not isinstance(value, dict):
        return ""
    if "repo" in value:
        revision = f" at {value['revision'][:12]}" if "revision" in value else f", dequantized from {value.get('file')}"
        return f"{value['repo']}{revision}"
    if "checkpoint" in value:
        return f"a local checkpoint (sha256 {value['checkpoint'][:12]})"
    return f"a file (sha256 {value['sha256'][:12]})" if "sha256" in value else ""
