"""Models as values: handles of checkpoints, their architecture, their memory, their files."""

from cong.models.adapters import adapter_base, merge
from cong.models.handles import (
    ASKING_FOR_DATE,
    HubModel,
    LocalModel,
    Model,
    architecture_of,
    architectures_of,
    check_chat,
    check_model,
    check_pair,
    check_same_tokenizer,
    describe,
    largest,
    model_dir,
    pair_dirs,
    root_model,
    shares_base,
)
from cong.models.hub import check_hub, hub_dir
from cong.models.packaged import PackagedModel, packaged

__all__ = [
    "ASKING_FOR_DATE",
    "HubModel",
    "LocalModel",
    "Model",
    "PackagedModel",
    "adapter_base",
    "architecture_of",
    "architectures_of",
    "check_chat",
    "check_hub",
    "check_model",
    "check_pair",
    "check_same_tokenizer",
    "describe",
    "hub_dir",
    "largest",
    "merge",
    "model_dir",
    "packaged",
    "pair_dirs",
    "root_model",
    "shares_base",
]
