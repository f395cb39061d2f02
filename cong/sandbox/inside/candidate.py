"""The process of the program: runs it, then does with its functions and objects what the tests ask for.

Nothing in this process knows what the tests expect; it can only answer.
"""

import sys
import types
from typing import Any

from .channel import Channel, Gone, decode, encode

_TEXT = 300


def serve(program: str, channel: Channel) -> None:
    """Run a program, tell the tests its names, and answer until they are done."""
    kept: list[Any] = []
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        exec(compile(program, "program.py", "exec"), module.__dict__)
        channel.send({"names": {name: _coded(value, kept) for name, value in list(vars(module).items())}})
        while True:
            _answer(channel, kept)
    except Gone:
        return
    except BaseException as error:
        channel.send({"error": _describe(error)})


def _coded(value: Any, kept: list[Any]) -> Any:
    return encode(value, keep=lambda item: _keep(item, kept))


def _keep(value: Any, kept: list[Any]) -> int:
    kept.append(value)
    return len(kept) - 1


def _answer(channel: Channel, kept: list[Any]) -> None:
    request = channel.receive()
    try:
        args, kwargs = (decode(request[part], kept=kept.__getitem__) for part in ("args", "kwargs"))
        value = _OPERATIONS[request["operation"]](kept[request["of"]], *args, **kwargs)
        reply = {"value": _coded(value, kept)}
    except BaseException as error:
        reply = {"error": _describe(error)}
    channel.send(reply)


def _describe(error: BaseException) -> list[str]:
    try:
        return [type(error).__name__, str(error)[:_TEXT]]
    except BaseException:
        return [type(error).__name__, "an error without text"]


_OPERATIONS = {
    "call": lambda of, *args, **kwargs: of(*args, **kwargs),
    "getattr": getattr,
    "setattr": setattr,
    "iter": iter,
    "next": next,
    "len": len,
    "getitem": lambda of, key: of[key],
    "str": str,
}
