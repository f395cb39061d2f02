"""Models as values: handles of checkpoints, their architecture, their memory, their files."""

from cong.models.handles import (
    ASKING_FOR_DATE,
    HubModel,
    LocalModel,
    Model,
    architecture_of,
    architectures_of,
    check_hub,
    check_model,
    check_same_tokenizer,
    describe,
    hub_dir,
    largest,
    model_dir,
    root_model,
)
from cong.models.packaged import PackagedModel, packaged

__all__ = [
    "ASKING_FOR_DATE",
    "HubModel",
    "LocalModel",
    "Model",
    "PackagedModel",
    "architecture_of",
    "architectures_of",
    "check_hub",
    "check_model",
    "check_same_tokenizer",
    "describe",
    "hub_dir",
    "largest",
    "model_dir",
    "packaged",
    "root_model",
]
