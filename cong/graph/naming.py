"""One name, one class: an identity holds the bare name of a class, so two classes of one name would share results.

Refused is a second class of one name in a graph, a class that is called like one of `cong`'s own, and a finished stage
that a class of this name in another file, and of another text, has made.
"""

import ast
import functools
import hashlib
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from cong.errors import UserError
from cong.graph.stage import Stage, values_in

_PACKAGE = Path(__file__).resolve().parents[1]
_CLASS = re.compile(r"^class (\w+)", re.MULTILINE)

Definition = dict[str, str]


def check_classes(stages: Iterable[Stage]) -> None:
    """Raise `UserError` when two classes that identities of these stages name are called the same."""
    known: dict[tuple[bool, str], type] = {}
    for found in classes_in(stages):
        key = issubclass(found, Stage), found.__name__
        other = known.setdefault(key, found)
        if _origin(other) != _origin(found):
            raise _second(found, other)
        if not _is_ours(found) and (ours := _own_class(found)) is not None:
            raise _second(found, ours)


def classes_in(stages: Iterable[Stage]) -> Iterator[type]:
    """Yield the classes of stages and of all values that they hold, each once."""
    kinds: list[type] = [type(value) for value in values_in(stages)]
    yield from dict.fromkeys(kinds)


@functools.lru_cache(maxsize=256)
def definition(kind: type) -> Definition | None:
    """Return what tells a class of a user's file from others of its name; None for those of `cong`, or unknown ones."""
    if _is_ours(kind):
        return None
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return None
    text = ast.dump(tree)  # Neither comments nor line breaks count.
    return {"file": Path(_origin(kind)[0]).name, "source": hashlib.sha256(text.encode()).hexdigest()}


def check_maker(stage: Stage, maker: Definition | None) -> None:
    """Raise `UserError` when a finished stage was made by another class; `maker` is what its record says."""
    mine = definition(type(stage))
    if mine and maker and mine["file"] != maker["file"] and mine["source"] != maker["source"]:
        raise UserError(
            f"{stage.title} is in the store, made by another class {stage.name} of {maker['file']}: "
            f"give the one of {mine['file']} another name, or another VERSION if it is the same one"
        )


def _second(found: type, other: type) -> UserError:
    first, second = (f"{kind.__module__} ({_origin(kind)[0]})" for kind in (other, found))
    return UserError(
        f"two classes are called {found.__name__}: that of {first} and that of {second}; "
        "a result is known by the name of its class, so give one of them another name"
    )


def _is_ours(kind: type) -> bool:
    return kind.__module__.split(".")[0] == _PACKAGE.name


def _own_class(kind: type) -> type | None:
    """Return the class of `cong` that is called like this one and that an identity could name."""
    for module in _own_modules().get(kind.__name__, ()):
        found: type = getattr(importlib.import_module(module), kind.__name__)
        if hasattr(found, "__dataclass_fields__") and issubclass(found, Stage) == issubclass(kind, Stage):
            return found
    return None


@functools.cache
def _own_modules() -> dict[str, tuple[str, ...]]:
    """Return by name of class the modules of `cong` that define it, read from their text: most are never imported."""
    found: dict[str, tuple[str, ...]] = {}
    for path in _PACKAGE.rglob("*.py"):
        parts = path.relative_to(_PACKAGE.parent).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        for name in _CLASS.findall(path.read_text()):
            found[name] = (*found.get(name, ()), module)
    return found


def _origin(kind: type) -> tuple[str, str]:
    """Return file and name within it: a file that is loaded twice has two classes that are one."""
    code = (getattr(value, "__code__", None) for value in vars(kind).values())
    written = next((c.co_filename for c in code if c is not None and not c.co_filename.startswith("<")), None)
    module = sys.modules.get(kind.__module__)
    return written or getattr(module, "__file__", None) or kind.__module__, kind.__qualname__
