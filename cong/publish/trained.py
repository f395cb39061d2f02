"""A stage of a store that trained a model, read from what it left there: no experiment file is needed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.graph.store import RECORD
from cong.models import HubModel, LocalModel, PackagedModel
from cong.models.adapters import ADAPTER_CONFIG, holds_adapter
from cong.models.handles import MODEL
from cong.models.standin import StandIn


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The directory of a finished stage that holds a checkpoint."""

    root: Path
    """Of the store."""
    directory: Path

    @property
    def place(self) -> str:
        """Return where it lies below the store's root."""
        return str(self.directory.relative_to(self.root))

    @property
    def checkpoint(self) -> Path:
        """Return the directory of its weights, or of its adapter."""
        return self.directory / MODEL

    @property
    def is_adapter(self) -> bool:
        """Whether its weights are an adapter on those of another model."""
        return holds_adapter(self.checkpoint)

    @cached_property
    def record(self) -> dict[str, Any]:
        """Return what was recorded of its computation."""
        return json.loads((self.directory / RECORD).read_text())

    @property
    def fingerprint(self) -> str:
        """Return the identity of the stage, 64 hexadecimal digits."""
        return self.record["fingerprint"]

    @property
    def origin(self) -> dict[str, Any]:
        """Return what is recorded of the model with which the training began: a stage or a checkpoint, or nothing."""
        origin = self.record["config"].get("model")
        return origin if isinstance(origin, dict) else {}

    def parent(self) -> "TrainedModel | None":
        """Return the stage that trained the model with which this training began; None for a given checkpoint."""
        if "fingerprint" not in self.origin:
            return None
        return _of_fingerprint(self.root, self.origin["stage"], self.origin["fingerprint"])

    def ancestors(self) -> "Iterator[TrainedModel]":
        """Yield this stage, the one on whose model it was trained, and so on."""
        model: TrainedModel | None = self
        while model is not None:
            yield model
            model = model.parent()

    def base_directory(self) -> Path:
        """Return the checkpoint on which an adapter was trained; raise `UserError` when it is no longer there."""
        parent = self.parent()
        if parent is not None:
            return parent.checkpoint
        return given_directory(self.origin, path=self._stated_base())

    def _stated_base(self) -> str:
        return json.loads((self.checkpoint / ADAPTER_CONFIG).read_text())["base_model_name_or_path"]


def given_directory(identity: dict[str, Any], *, path: str) -> Path:
    """Return where a given checkpoint lies, by its recorded identity; raise `UserError` when it is not what it was."""
    if identity.get("class") == "HubModel":
        return HubModel(repo=identity["repo"], revision=identity["revision"]).directory()
    if identity.get("class") == "StandIn":
        said = {name: value for name, value in identity.items() if name != "class"}
        return PackagedModel(said=StandIn(**said)).directory()
    local = LocalModel(path=path)
    if local.identity()["checkpoint"] != identity.get("checkpoint"):
        raise UserError(f"{path} was changed since the adapter was trained on it")
    return local.directory()


def _of_fingerprint(root: Path, stage: str, fingerprint: str) -> TrainedModel:
    for directory in root.glob(f"{stage}/*{fingerprint[:8]}"):
        found = TrainedModel(root=root, directory=directory)
        if (directory / RECORD).is_file() and found.fingerprint == fingerprint and found.checkpoint.is_dir():
            return found
    raise UserError(f"the store {root} has no longer the {stage} {fingerprint[:8]}, on whose model this one rests")
