"""The process of the tests: runs them, with a stand-in for everything that the program defines.

`assert f(3) == 8` calls `f` in the program's process and compares the copy of its value here. The program can neither
end this process, nor read it, nor write to it otherwise than by answering; only it knows where the verdict goes.
"""

import builtins
import importlib
import sys
import types
from typing import Any

from .channel import Channel, Gone, decode, encode

_TEXT = 300
Report = dict[str, str]


def run(tests: str, channel: Channel) -> Report:
    """Run the tests and return `reason` and `detail`; the reason is `gone` when the program's process has ended."""
    try:
        exec(compile(tests, "tests.py", "exec"), _namespace(channel))
    except Gone:
        pass
    except AssertionError as error:
        return _report("assertion", error)
    except MemoryError as error:
        return _report("memory", error)
    except BaseException as error:
        return _report("exception", error)
    # A test that holds up every exception does not hide that the program has ended.
    return {"reason": "gone" if channel.gone else "passed", "detail": ""}


def _namespace(channel: Channel) -> dict[str, Any]:
    """Return the program's names, less those that would shadow `abs`, `all` or `math` where the tests rely on them.

    `from program import sum` takes a name all the same.
    """
    found = _result(channel.receive(), "names", lambda data: data, channel)
    module = types.ModuleType("program")
    vars(module).update({name: _decode(data, channel) for name, data in found.items() if not name.startswith("__")})
    sys.modules["program"] = module
    own = {name: value for name, value in vars(module).items() if not hasattr(builtins, name)}
    libraries = [name for name in own if name in sys.stdlib_module_names]
    return {**own, **{name: importlib.import_module(name) for name in libraries}, "__name__": "tests"}


def _decode(data: Any, channel: Channel) -> Any:
    return decode(data, kept=lambda number: Remote(channel, number))


def _result(reply: Any, key: str, read: Any, channel: Channel) -> Any:
    if "error" not in reply:
        return read(reply[key])
    name, text = reply["error"]
    kind = getattr(builtins, name, None)
    # What would end the tests (SystemExit, KeyboardInterrupt) is no more than an exception here.
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError):
        raise kind(text)
    raise RuntimeError(f"{name}: {text}")


class Remote:
    """Stands for a function or an object of the program. It is equal to itself and to nothing else."""

    def __init__(self, channel: Channel, number: int) -> None:
        vars(self).update(_remote_channel=channel, _remote_number=number)

    def _remote(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        channel = self._remote_channel
        request = {"operation": operation, "of": self._remote_number}
        coded = ({"args": list(args)} | {"kwargs": kwargs}).items()
        channel.send(request | {name: encode(value, keep=_number) for name, value in coded})
        return _result(channel.receive(), "value", lambda data: _decode(data, channel), channel)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._remote("call", *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return self._remote("getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._remote("setattr", name, value)

    def __iter__(self) -> Any:
        return self._remote("iter")

    def __next__(self) -> Any:
        return self._remote("next")

    def __len__(self) -> int:
        return self._remote("len")

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, key: Any) -> Any:
        return self._remote("getitem", key)

    def __str__(self) -> str:
        return self._remote("str")


def _number(value: Any) -> int:
    if isinstance(value, Remote):
        return value._remote_number
    raise TypeError(f"tests can hand plain values to a program, not {type(value).__name__}")


def _report(reason: str, error: BaseException) -> Report:
    return {"reason": reason, "detail": f"{type(error).__name__}: {error}"[:_TEXT].rstrip(": ")}
