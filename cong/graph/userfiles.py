"""Python files of users: experiments, scales, rewards. Imported by path; what they do wrong is one line."""

import copyreg
import functools
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from cong.errors import UserError

PREFIX = "cong_experiment_"
"""What the names of the modules of loaded files begin with."""
_Cached = type(functools.cache(lambda: None))


def load_module(path: Path, *, kind: str) -> ModuleType:
    """Import a file; `kind` says what it is, for the message when it is missing."""
    if not path.is_file():
        raise UserError(f"there is no {kind} {path}")
    spec = importlib.util.spec_from_file_location(f"{PREFIX}{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    guarded(path, lambda: spec.loader.exec_module(module))  # pyright: ignore[reportOptionalMemberAccess]
    return module


def share_definitions() -> None:
    """Let Ray's workers, on whatever machine, have what the loaded files define: it travels with what uses it."""
    from ray import cloudpickle as untyped

    cloudpickle: Any = untyped
    for name, module in list(sys.modules.items()):
        if name.startswith(PREFIX):
            cloudpickle.register_pickle_by_value(module)


def _cached_by_value(function: Any) -> Any:
    if not function.__module__.startswith(PREFIX):
        return function.__qualname__
    return _cached_again, (function.__wrapped__, function.cache_parameters())


def _cached_again(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


# A cached function pickles itself as a name, past all that cloudpickle does for functions; this module is imported
# wherever one arrives, so that it can travel on from there.
copyreg.pickle(_Cached, _cached_by_value)


def guarded(path: Path, call: Callable[[], Any]) -> Any:
    """Call what runs code of a user's file; raise `UserError` with file and line for whatever it raises."""
    try:
        return call()
    except UserError:
        raise
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f", line {frames[-1].lineno}" if frames else ""
        what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{path.name}{where}: {what}") from error
