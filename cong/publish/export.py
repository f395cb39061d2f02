"""Writes a model of a store out: weights, tokenizer, chat template, generation settings, and a model card.

What is written is whole: it appears under its name when all of it is there. A directory that holds something else is
never overwritten; one that holds this very model is left as it is.
"""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from cong.errors import UserError
from cong.models.adapters import merge
from cong.publish.card import write_card
from cong.publish.trained import TrainedModel

ORIGIN = "cong.json"
"""File that says of which stage an exported model is."""


def export(model: TrainedModel, target: Path, *, adapter: bool = False, report: Path | None = None) -> Path:
    """Write a model to a directory; an adapter is merged into its base unless it is wanted as an `adapter`.

    `report` is a directory of pages that goes with it. Raise `UserError` when something else lies at the target.
    """
    if adapter and not model.is_adapter:
        raise UserError(f"{model.place} has whole weights, and no adapter")
    if check_target(target, fingerprint=model.fingerprint, adapter=adapter):
        return target
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    if adapter:
        shutil.copytree(model.checkpoint, partial)
    else:
        _write_whole(model, partial)
    write_card(model, partial, adapter=adapter)
    if report is not None:
        shutil.copytree(report, partial / "report")
    (partial / ORIGIN).write_text(json.dumps(_origin(model.fingerprint, adapter=adapter), indent=1) + "\n")
    partial.rename(target)
    return target


def _write_whole(model: TrainedModel, target: Path) -> None:
    if not model.is_adapter:
        shutil.copytree(model.checkpoint, target)
        return
    parent = model.parent()
    if parent is None or not parent.is_adapter:
        merge(model.base_directory(), model.checkpoint, target)
        return
    with TemporaryDirectory(dir=target.parent, prefix=f"{target.name}-base-") as scratch:
        _write_whole(parent, Path(scratch) / "base")
        merge(Path(scratch) / "base", model.checkpoint, target)


def check_target(target: Path, *, fingerprint: str | None, adapter: bool = False) -> bool:
    """Return whether the model lies at the target already; raise `UserError` when something else does.

    Without a fingerprint, before it is known, any exported model is taken for it.
    """
    if not target.exists():
        return False
    try:
        there = json.loads((target / ORIGIN).read_text())
    except (OSError, ValueError):
        there = None
    if there is not None and (fingerprint is None or there == _origin(fingerprint, adapter=adapter)):
        return True
    raise UserError(f"{target} is there already, and holds something else: nothing is overwritten, name another one")


def _origin(fingerprint: str, *, adapter: bool) -> dict[str, str | bool]:
    return {"fingerprint": fingerprint, "adapter": adapter}
