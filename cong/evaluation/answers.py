"""The final answer of a written solution, and whether two answers are the same.

Where the answer stands is tried in this order: behind `####` (GSM8K), in the last `\\boxed{...}` (MATH), behind "answer
is", and else the last number of the text.

    >>> same_answer(final_answer("18 - 3 = 15, so ... #### 1,015"), "1015")
    True
    >>> final_answer(r"hence \\boxed{\\frac{1}{2}}.")
    '\\\\frac{1}{2}'
"""

import re
from fractions import Fraction

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?")
_STATED = re.compile(r"answer\s*(?:is|:)?\s*:?\s*\$?([^\n$]+)", re.IGNORECASE)
_FRACTION = re.compile(r"\\d?t?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}|\\d?t?frac\s*(\d)\s*(\d)")
_DECORATION = re.compile(
    r"\\(?:left|right|!|,|;|:|quad|%|\$)|[$%\s]|\\text\{[^{}]*\}|\\mathrm\{[^{}]*\}|\^\\circ|\^\{\\circ\}"
)


def final_answer(text: str) -> str | None:
    """Return the final answer as it is written, or None when there is none."""
    if "####" in text:
        behind = text.rpartition("####")[2].strip().splitlines()
        return behind[0].strip() if behind and behind[0].strip() else None
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    stated = _STATED.findall(text)
    numbers = _NUMBER.findall(stated[-1] if stated else text) or _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def same_answer(answer: str | None, reference: str) -> bool:
    """Tell whether an answer equals the reference: as numbers where both are, else as normalised texts."""
    if answer is None:
        return False
    ours, theirs = _normal(answer), _normal(reference)
    first, second = _number(ours), _number(theirs)
    if first is not None and second is not None:
        return first == second
    return ours == theirs


def _last_boxed(text: str) -> str | None:
    """Return what the last \\boxed holds, with its inner braces balanced."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for position in range(begin - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin:position].strip()
    return None


def _normal(answer: str) -> str:
    text = _FRACTION.sub(lambda m: f"({m[1] or m[3]})/({m[2] or m[4]})", answer.strip().rstrip("."))
    text = _DECORATION.sub("", text)
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    return re.sub(r"\((-?\d+)\)", r"\1", text).lower()


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
