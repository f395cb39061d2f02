"""What MLflow takes as names and values: it refuses many that experiments use, such as the metric `acc@1`.

>>> taken_names(["acc@1", "loss"])
{'acc@1': 'acc_1', 'loss': 'loss'}
"""

import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

LONGEST_NAME = 250
LONGEST_TAG = 5000
LONGEST_PARAM = 500
PER_BATCH = 100
"""Params or tags that one request may hold."""

_REFUSED = re.compile(r"[^/\w.\- :]")
Item = TypeVar("Item")


def taken_names(names: Iterable[str]) -> dict[str, str]:
    """Return for each name the one under which MLflow takes it; names that it takes stay, and no two become one."""
    wanted = [str(name) for name in names]
    used = {name for name in wanted if _taken(name) == name}
    found = {name: name for name in wanted if name in used}
    for name in wanted:
        if name not in found:
            found[name] = next(other for other in _candidates(_taken(name)) if other not in used)
            used.add(found[name])
    return {name: found[name] for name in wanted}


def text_of(value: Any, length: int | None = None) -> str:
    """Return a value as text of at most so many characters that every database can hold, and every terminal show."""
    return str(value)[:length].encode(errors="replace").decode().replace("\0", " ")


def numbers_of(values: Mapping[str, Any]) -> dict[str, float]:
    """Return what is a number, as MLflow takes it."""
    return {name: _number(value) for name, value in values.items() if isinstance(value, int | float)}


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield the items in lists of at most so many."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _number(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _taken(name: str) -> str:
    clean = _REFUSED.sub("_", name)[:LONGEST_NAME]
    # It could be a file's name: none that leads elsewhere is taken.
    return clean if clean and posixpath.normpath(clean) == clean and clean[0] not in "./" else _flat(clean)


def _flat(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    flat = "/".join(parts)
    return flat if flat and flat[0] != "." else f"_{flat}"


def _candidates(name: str) -> Iterator[str]:
    yield name
    for number in range(2, 1_000_000):
        yield f"{name[: LONGEST_NAME - 8]}_{number}"
