"""JSON Lines: one JSON value per line, where a line ends at a line feed and nowhere else.

    for number, line in numbered_lines(path.read_bytes()):
        row = parse_object(line)      # ValueError with what is wrong

JSON allows U+2028, U+0085 and other characters at which `str.splitlines` would cut inside of a text. A byte order mark
and carriage returns at the ends of lines, as some editors write them, are no part of a line.
"""

import codecs
import json
from collections.abc import Iterator
from typing import Any


def numbered_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers from 1 on."""
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if line.strip():
            yield number, line.removesuffix(b"\r")


def parse_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line; raise `ValueError` when it is something else, with what a reader can mend."""
    try:
        text = line.decode()
        value = json.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8: {error}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"is no JSON object: {text[:60]}")
    return value


def lone_surrogate(value: Any) -> str | None:
    """Return the first half of a character (as in "\\ud83d") in a JSON value, escaped; None where every text is whole.

    JSON can write it, but it is no text: neither UTF-8 nor a tokenizer can.
    """
    if isinstance(value, str):
        halves = (f"\\u{ord(character):04x}" for character in value if 0xD800 <= ord(character) <= 0xDFFF)
        return next(halves, None)
    items = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next(filter(None, map(lone_surrogate, items)), None)


def whole_text(text: str) -> str:
    """Return a text with every half of a character escaped, so that it can be written; others as they are."""
    return text.encode("utf-8", "backslashreplace").decode()
