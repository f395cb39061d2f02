"""Python files of users: experiments, scales, rewards. Imported by path; what they do wrong is one line."""

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
