"""Plain data between the tests and the program, which live in two processes.

    channel.send({"value": encode([1, (2.5, None)], keep=keep)})

Values of Python's own plain types cross as copies. Whatever else the program has (a function, an object) stays where it
is, and a number stands for it. The tests therefore only ever compare values of types that the program cannot change.
"""

import json
import numbers
import os
import struct
from collections.abc import Callable
from typing import Any

LIMIT = 16 << 20
_SMALL = 1 << 53


class Gone(BaseException):
    """The other side has ended. No `except Exception` of a test holds it up."""


class Channel:
    """Messages over two pipes, each preceded by its length."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = reader, writer
        self.gone = False

    def send(self, message: Any) -> None:
        data = json.dumps(message).encode()
        if len(data) > LIMIT:
            raise ValueError(f"a value of {len(data)} bytes is too large")
        self._write(struct.pack("=I", len(data)) + data)

    def receive(self) -> Any:
        (size,) = struct.unpack("=I", self._read(4))
        if size > LIMIT:
            raise ValueError(f"a value of {size} bytes is too large")
        return json.loads(self._read(size))

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self.writer, data) :]
        except BrokenPipeError:
            self._end()

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            parts.append(os.read(self.reader, size))
            if not parts[-1]:
                self._end()
            size -= len(parts[-1])
        return b"".join(parts)

    def _end(self) -> None:
        self.gone = True
        raise Gone


def encode(value: Any, *, keep: Callable[[Any], int]) -> Any:
    """Return JSON for a value; `keep` gives the number of one that does not cross."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, numbers.Integral):
        number = int(value)
        return number if abs(number) < _SMALL else {"int": hex(number)}
    if isinstance(value, float):
        return {"float": float.hex(value)}
    if isinstance(value, complex):
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if isinstance(value, bytes | bytearray):
        return {type(value).__name__: value.hex()}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [encode(item, keep=keep) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(part, keep=keep) for part in item] for item in value.items()]}
    return {"kept": keep(value)}


def decode(data: Any, *, kept: Callable[[int], Any]) -> Any:
    """Return the value that `encode` wrote; `kept` gives what stands for a number."""
    if data is None or isinstance(data, bool | str | int):
        return data
    ((kind, content),) = data.items()
    if kind in ("list", "tuple", "set", "frozenset"):
        make = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind]
        return make(decode(item, kept=kept) for item in content)
    if kind == "dict":
        return {decode(key, kept=kept): decode(value, kept=kept) for key, value in content}
    if kind == "kept":
        return kept(content)
    return _scalar(kind, content)


def _scalar(kind: str, content: Any) -> Any:
    if kind == "int":
        return int(content, 16)
    if kind == "float":
        return float.fromhex(content)
    if kind == "complex":
        return complex(*(float.fromhex(part) for part in content))
    if kind in ("bytes", "bytearray"):
        return {"bytes": bytes, "bytearray": bytearray}[kind].fromhex(content)
    raise ValueError(f"no value of kind {kind!r} crosses")
