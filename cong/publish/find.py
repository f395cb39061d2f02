"""Which model of a store is meant: by its stage, or by a cell of an experiment that evaluates it."""

from pathlib import Path

from cong.errors import UserError
from cong.experiment import value_text
from cong.graph.store import RECORD, SUCCESS
from cong.models.handles import MODEL
from cong.publish.trained import TrainedModel
from cong.run.status import RunState, matching

_SHOWN = 8


def find_model(root: Path, text: str) -> TrainedModel:
    """Return the one model that `text` names; raise `UserError`, which lists what there is, for none and for several.

    It is part of a stage's place below the store's root, such as `SFT/lr=0.0005-1a2b3c4d` or `1a2b3c4d`, or
    `EXPERIMENT:AXIS=VALUE,...`, the cells of an experiment's last run that have these values.
    """
    known = trained_models(root)
    name, colon, axes = text.partition(":")
    found = _of_cells(root, name, axes) if colon else [path for path in known if text in path]
    if len(found) == 1:
        return TrainedModel(root=root, directory=root / found[0])
    listed = sorted(found or known)
    shown = ", ".join(listed[:_SHOWN]) + (f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else "")
    if found:
        raise UserError(f"{text} means {len(found)} models of {root}: {shown}")
    raise UserError(f"{text} means no finished model of {root}; there are {shown or 'none'}")


def trained_models(root: Path) -> list[str]:
    """Return the places of all finished stages that hold a checkpoint."""
    return sorted(str(path.parent.relative_to(root)) for path in root.glob(f"[A-Z]*/*/{SUCCESS}") if _is_model(path))


def _is_model(success: Path) -> bool:
    return (success.parent / MODEL).is_dir() and (success.parent / RECORD).is_file()


def _of_cells(root: Path, experiment: str, axes: str) -> list[str]:
    wanted = dict(_axis(part) for part in axes.split(",")) if axes else {}
    return sorted({place for run in matching(root, experiment) for place in _places(run, wanted)})


def _axis(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"{text}: a cell is written EXPERIMENT:AXIS=VALUE,AXIS=VALUE")
    return name, value


def _places(run: RunState, wanted: dict[str, str]) -> list[str]:
    cells = [cell for cell in run.record["cells"] if cell.get("model") is not None]
    chosen = (cell for cell in cells if wanted.items() <= {k: value_text(v) for k, v in cell["axes"].items()}.items())
    places = {run.record["stages"][cell["model"]]["directory"] for cell in chosen}
    return [
        place for place in places if _is_model(run.root / place / SUCCESS) and (run.root / place / SUCCESS).exists()
    ]
