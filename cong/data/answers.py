r"""The final answer of a written solution, and whether two answers are the same.

Where the answer stands is tried in this order, and a rule that finds nothing gives way to the next: behind `####`
(GSM8K; the number at the beginning of the line, or the whole line where nothing follows it, so that no heading of
Markdown is an answer), in the last `\boxed{...}` (MATH), behind "answer is", and else the last number of the text.

Answers are compared as MATH compares them: layout, units behind a number, degrees, percent and currency signs do not
count, what a `\text{...}` says does; numbers are compared by their value.

    >>> same_answer(final_answer("18 - 3 = 15, so ... #### 1,015 dollars"), "1015")
    True
    >>> final_answer(r"hence \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
"""

import re
from fractions import Fraction

_DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+)?"
_NUMBER = re.compile(rf"(?:(?<![\w)\]}}])[-\u2212])?{_DIGITS}")
_MARK = re.compile(r"#{4,}(?P<line>[^\n]*)(?P<rest>.*)\Z", re.DOTALL)
_STATED = re.compile(r"\banswer\b\s*(?:is|are|=|:|\uff1a)+\s*:?\s*([^\n]+)", re.IGNORECASE)
_LABEL = re.compile(r"^(?:so\s+)?(?:the\s+)?(?:final\s+)?(?:answer|result)\s*(?:is|=|:)*\s*", re.IGNORECASE)
_NUMBERED = re.compile(r"^\(?\d+[.):]\s+\D")
_QUANTITY = re.compile(
    rf"^[^\w\\.({{\u2212-]{{0,2}}(?P<number>[-\u2212]?\s?(?:\\?[$\u20ac\u00a3\u00a5])?\s?{_DIGITS})"
    r"(?:\s*(?:\\?%|\\?\$|\u00b0))?(?:[.!;:]*$|,?\s+(?!(?:and|or|to|x|times|plus|minus)\b)[A-Za-z(].*$)"
)
_WORDS = re.compile(r"^[^\W\d]+(?:\s[^\W\d]+)?$|^\(?[A-Za-z]\)?$")

_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}|\\[dt]?frac\s*(\d)\s*(\d)")
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf|textit|mathbf|textnormal|operatorname)\s*\{([^{}]*)\}")
_UNIT = re.compile(rf"^([-\u2212]?{_DIGITS}|.*[\d)}}])\s*(?:\\[,;:! ]|~|\\quad)?\s*{_TEXT.pattern}(?:\^\{{?\d\}}?)?$")
_DECORATION = re.compile(
    r"\\(?:left|right|!|,|;|:|quad|qquad|%|\$|\(|\)|\[|\]|displaystyle)(?![a-z])"
    r"|\\ |[$%\s~\u00b0*`]|\^\{?\\circ\}?|\\degrees?"
)


def final_answer(text: str) -> str | None:
    """Return the final answer as it is written, or None when there is none."""
    for rule in (_behind_hashes, _last_boxed, _stated, _last_number):
        answer = rule(text)
        if answer:
            return answer
    return None


def same_answer(answer: str | None, reference: str) -> bool:
    """Tell whether an answer equals the reference: as numbers where both are, else as normalised texts."""
    if answer is None:
        return False
    ours, theirs = _normal(answer), _normal(reference)
    first, second = _number(ours), _number(theirs)
    if first is not None and second is not None:
        return first == second
    return ours == theirs


def _behind_hashes(text: str) -> str | None:
    """Return what stands behind the last `####` that is no heading."""
    for found in reversed([_MARK.match(text, mark.start()) for mark in re.finditer(r"#{4,}", text)]):
        assert found is not None
        boxed = _last_boxed(found["line"])
        line = _plain(found["line"])
        if boxed is not None:
            return boxed
        number = None if _NUMBERED.match(line) else _leading_number(line) or _leading_number(line.rpartition("=")[2])
        # A number with words may be a heading: it is none where no answer comes after it.
        bare = number is not None and len(line) <= len(number) + 1
        last = not found["rest"].strip()
        if number is not None and (bare or last or not (_last_boxed(found["rest"]) or _stated(found["rest"]))):
            return number
        if line and last:
            return line
    return None


def _leading_number(text: str) -> str | None:
    """Return the number that a text begins with, where words at most follow it."""
    found = _QUANTITY.match(text.strip())
    return found["number"].strip() if found else None


def _last_boxed(text: str) -> str | None:
    r"""Return what the last \boxed or \fbox holds, with its inner braces balanced, or the word behind it."""
    for mark in reversed(list(re.finditer(r"\\(?:boxed|fbox)\s*(?:(\{)|([^\s${}\\.,]+))", text))):
        if mark[2]:
            return mark[2]
        depth = 0
        for position in range(mark.end() - 1, len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[mark.end() : position].strip()
    return None


def _stated(text: str) -> str | None:
    """Return what is said to be the answer: the number that it begins with, mathematics, its last number, or a word."""
    for found in reversed(_STATED.findall(text)):
        line = _plain(found)
        if number := _leading_number(line):
            return number
        if formula := re.search(r"\$+([^$]+)\$+|\\\((.+?)\\\)", found):
            return (formula[1] or formula[2]).strip()
        if "\\" in line:
            return line.rstrip(".")
        numbers = _NUMBER.findall(line)
        if numbers:
            return numbers[-1]
        if _WORDS.match(line.rstrip(".!")):
            return line.rstrip(".!")
    return None


def _last_number(text: str) -> str | None:
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def _plain(line: str) -> str:
    """Return a line without Markdown's emphasis, brackets of a formula around all of it, and a label before it."""
    for _ in range(2):
        line = _LABEL.sub("", re.sub(r"\*\*|__|`", "", line).strip()).strip(" *_")
    whole = re.fullmatch(r"\$+([^$]+)\$+\.?|\\[(\[](.+?)\\[)\]]\.?", line)
    return (whole[1] or whole[2]).strip() if whole else line


def _normal(answer: str) -> str:
    text = answer.strip().rstrip(".").replace("\u2212", "-").replace("{,}", ",")
    # Units of a number come first: unwrapped they would be a part of it.
    text = _UNIT.sub(r"\1", text)
    text = _TEXT.sub(r"\1", text)
    if quantity := re.match(rf"^(-?{_DIGITS})\s+[A-Za-z][A-Za-z .]*$", text):
        text = quantity[1]
    text = _FRACTION.sub(lambda m: f"({m[1] or m[3]})/({m[2] or m[4]})", text)
    text = re.sub(r"\\sqrt\s*(\w)", r"\\sqrt{\1}", text)
    text = _DECORATION.sub("", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"^[A-Za-z]{1,2}=(?!.*=)", "", text)
    return re.sub(r"\((-?\d+|[A-Za-z])\)", r"\1", text).rstrip(".").lower()


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
