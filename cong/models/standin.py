"""What stands in a mirror for a checkpoint of the hub, and is not that checkpoint: it says so in a file of its own.

    stand_in(directory)      # None, or what `stand_in.json` says of where the weights come from

Its identity is what it says, so that nothing computed from it is ever taken for a result of the hub's model. It also
notes a digest of what was written, and a directory that was changed since is refused.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cong.errors import UserError
from cong.models.digests import directory_digest

STAND_IN = "stand_in.json"


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """Where the weights of a stand-in come from."""

    repo: str
    """Name of the model on the hub for which it stands."""
    source: str
    """Packages with their versions, or where else the file comes from."""
    file: str
    """Name of the GGUF file whose weights were dequantized."""
    sha256: str
    """Of that file, 64 hexadecimal digits."""
    conversion: int
    """Version of the conversion: another one gives other weights, another tokenizer or another chat template."""

    def identity(self) -> Any:
        """Return all fields, and that it is a stand-in."""
        return {"class": "StandIn", **asdict(self)}

    def __str__(self) -> str:
        return f"dequantized from {self.file} of {self.source} (sha256 {self.sha256[:12]})"


def stand_in(directory: Path) -> StandIn | None:
    """Return what a checkpoint says it stands in with, None for one that is no stand-in; raise `UserError` for half."""
    path = directory / STAND_IN
    if not path.is_file():
        return None
    return StandIn(**_read(path)["stand_in"])


def check_unchanged(directory: Path) -> None:
    """Raise `UserError` when a stand-in no longer holds what the conversion wrote."""
    if _digest(directory) != _read(directory / STAND_IN).get("digest"):
        raise UserError(f"{directory} was changed since it was converted: delete it, and run `cong mirror` again")


def write_stand_in(directory: Path, said: StandIn) -> None:
    """Say of a converted checkpoint what it is; all other files of it must be written."""
    content = {"stand_in": asdict(said), "digest": _digest(directory)}
    (directory / STAND_IN).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _digest(directory: Path) -> str:
    return directory_digest(directory, leaving_out=(STAND_IN,))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        StandIn(**content["stand_in"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not say what the checkpoint is: {error!r}") from error
    return content
