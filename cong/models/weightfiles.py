"""Safetensors files as they lie on disk, read without torch: which tensors they hold, and whether they are whole.

tensor_names(directory / "adapter_model.safetensors")
check_weight_files(directory)      # UserError: ... is a Git LFS pointer, not the file itself

Only headers are read, so that a checkpoint of any size is looked at in milliseconds, before anything is started.
"""

import json
import struct
from pathlib import Path
from typing import Any

from cong.errors import UserError

INDEX = "model.safetensors.index.json"
_LFS = b"version https://git-lfs"
_MOST_HEADER = 100_000_000
"""Bytes of the longest header that the format allows."""


def check_weight_files(directory: Path) -> None:
    """Raise `UserError` when a safetensors file of a checkpoint is missing, cut off, or none at all."""
    index = directory / INDEX
    for name in _indexed(index) if index.is_file() else ():
        if not (directory / name).is_file():
            raise UserError(f"{directory} is incomplete: {name}, which its index names, is missing")
    for path in sorted(directory.glob("*.safetensors")):
        read_header(path)


def tensor_names(path: Path) -> list[str]:
    """Return the names of the tensors in a safetensors file; raise `UserError` when it cannot be read."""
    return sorted(read_header(path).keys() - {"__metadata__"})


def tensor_shapes(directory: Path) -> dict[str, list[int]]:
    """Return the shapes of all tensors in the safetensors files of a checkpoint, by name."""
    headers = (read_header(path) for path in sorted(directory.glob("*.safetensors")))
    return {name: entry["shape"] for header in headers for name, entry in header.items() if name != "__metadata__"}


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: dtype, shape and place by name. Raise `UserError` unless it is whole."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS))
            if start == _LFS:
                raise UserError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull`")
            file.seek(0)
            header, data_bytes = _parse(file.read(8), file), path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, struct.error) as error:
        raise UserError(f"{path} is no safetensors file, or a part of one: download it again") from error
    length, tensors = header
    ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
    wanted = 8 + length + max(ends, default=0)
    if data_bytes != wanted:
        raise UserError(f"{path} has {data_bytes} bytes where its header needs {wanted}: download it again")
    return tensors


def _parse(prefix: bytes, file: Any) -> tuple[int, dict[str, Any]]:
    (length,) = struct.unpack("<Q", prefix)
    if length > _MOST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    content = file.read(length)
    tensors = json.loads(content)
    if len(content) < length or not isinstance(tensors, dict):
        raise ValueError("half a header")
    return length, tensors


def _indexed(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{index} is no index of weights: {error!r}") from error
