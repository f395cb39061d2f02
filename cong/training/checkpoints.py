"""Checkpoints that survive a kill at any moment: complete when `COMPLETE`, written last, is there.

A training continues from the last complete one that was written by the same kind of execution: the optimizer state of
ZeRO is split by worker, so another number of workers starts from the beginning.
"""

import json
import shutil
from pathlib import Path

from cong.graph.journal import open_to_group, replace_text
from cong.graph.resources import Resources

_MARKER = "COMPLETE"
_KEEP = 2


def execution_shape(resources: Resources) -> str:
    """Return what must agree between the writer and the reader of a checkpoint."""
    return (
        "plain"
        if resources.training.deepspeed == "none"
        else f"{resources.training.deepspeed} x {resources.training.workers}"
    )


def mark_complete(checkpoint: Path, *, shape: str) -> None:
    """Declare a checkpoint complete, then delete all but the last few."""
    # Weights are written for their owner only; who continues the stage may be another user of the store.
    for path in (checkpoint, *checkpoint.rglob("*")):
        open_to_group(path)
    replace_text(checkpoint / _MARKER, json.dumps({"shape": shape}))
    for old in _complete(checkpoint.parent, shape)[:-_KEEP]:
        shutil.rmtree(old)


def last_complete(directory: Path, *, shape: str) -> Path | None:
    """Return the checkpoint to continue from, or None."""
    found = _complete(directory, shape)
    return found[-1] if found else None


def discard_unusable(directory: Path, *, shape: str) -> None:
    """Delete what a kill left half-written and what another kind of execution wrote."""
    usable = _complete(directory, shape)
    for path in directory.glob("*"):
        if path not in usable:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def step_of(checkpoint: Path | None) -> int:
    """Return the optimizer step of a checkpoint, 0 for None."""
    return int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0


def _complete(directory: Path, shape: str) -> list[Path]:
    paths = [path for path in directory.glob("checkpoint-*") if _shape(path) == shape]
    return sorted(paths, key=step_of)


def _shape(checkpoint: Path) -> str | None:
    try:
        return json.loads((checkpoint / _MARKER).read_text())["shape"]
    except FileNotFoundError:
        return None
