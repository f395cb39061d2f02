"""Identity of a value: a canonical JSON form and its SHA-256, the same in every process and on every machine.

A value without a canonical form raises `TypeError`: a set, a path, an open file or an object of an unknown class would
give a different identity somewhere else, or hide a change.

    >>> canonical((1, 2.0, "a"))
    [1, 2, 'a']
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

LATER: Mapping[str, Any] = {"identity": "unless default"}
"""Metadata of a field that a class was given later: at its default it is left out, so that identities stay equal.

    lora: LoRA | None = field(default=None, metadata=LATER)
"""
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any) -> str:
    """Return the SHA-256 (64 hexadecimal digits) of the canonical form of `value`."""
    return digest(canonical(value))


def digest(data: Any) -> str:
    """Return the SHA-256 of data that is in canonical form already."""
    return hashlib.sha256(_ENCODER.encode(data).encode()).hexdigest()


def canonical(value: Any) -> Any:
    """Return `value` as JSON-compatible data; raise `TypeError` where there is no canonical form.

    A value whose class has a method `identity`, such as a stage or a checkpoint directory, states its own.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if hasattr(cast(type[Any], type(value)), "identity"):
        return value.identity()
    if isinstance(value, tuple | list):
        return [canonical(item) for item in cast(Sequence[Any], value)]
    if isinstance(value, dict):
        return _mapping(cast(dict[Any, Any], value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"class": type(value).__name__, **fields_of(value)}
    raise TypeError(f"no canonical form for {value!r} of type {type(value).__module__}.{type(value).__qualname__}")


def fields_of(value: Any) -> dict[str, Any]:
    """Return the canonical form of every field of a dataclass instance, defaults included but those of `LATER` ones."""
    known = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {field.name: canonical(content) for field, content in known if not _left_out(field, content)}


def _left_out(field: Any, content: Any) -> bool:
    return bool(field.metadata.get("identity") == LATER["identity"] and content == field.default)


def _number(value: int | float) -> int | float:
    if isinstance(value, int):
        return int(value)
    if not math.isfinite(value):
        raise TypeError(f"no canonical form for {value!r}")
    # alpha=1 and alpha=1.0 are the same experiment.
    return int(value) if value.is_integer() else float(value)


def _mapping(value: dict[Any, Any]) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"no canonical form for a mapping with the key {key!r}: keys must be strings")
    return {key: canonical(item) for key, item in value.items()}
