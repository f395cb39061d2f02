"""The program of a response: the code in its Markdown fences.

Fences are paired line by line as Markdown does: a block ends at a bare fence of its own kind, at least as long, and not
further indented than code of its depth; a fence that names a language begins another block, and the last block may be
cut off. Blocks of Python and those without a language form the program together. Where that is no Python, the blocks of
Python alone are, then the first block that is; a response without a block is a program as it stands.

    >>> program_of("Install:\\n```bash\\npip install x\\n```\\nRun:\\n```python3\\nprint(1)\\n```\\nDone.")
    'print(1)\\n'
"""

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

_FENCE = re.compile(r"^(?P<before>.*?)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")
_LANGUAGE = re.compile(r"\{?\.?([\w+#-]*)")
_DEEPER = 4
"""So much further indented a fence belongs to the code, such as to a docstring."""


@dataclass(frozen=True)
class _Fence:
    before: str
    marks: str
    info: str

    @property
    def indent(self) -> int:
        return len(self.before) - len(self.before.lstrip())

    @property
    def opens(self) -> bool:
        """Whether a block can begin here: behind a sentence there must be no more than a language."""
        return not self.before.strip() or " " not in self.info.strip()

    def ends(self, other: "_Fence") -> bool:
        """Tell whether this fence ends the block that another began."""
        same = self.marks[0] == other.marks[0] and len(self.marks) >= len(other.marks)
        behind_code = bool(self.before.strip()) and not self.info.strip()
        return same and (behind_code or (not self.before.strip() and self.indent < other.indent + _DEEPER))


@dataclass
class _Block:
    fence: _Fence
    lines: list[str] = field(default_factory=list)
    closed: bool = False

    @property
    def language(self) -> str:
        found = _LANGUAGE.match(self.fence.info.strip())
        return found[1].lower() if found else ""

    @property
    def code(self) -> str:
        margin = self.fence.indent if not self.fence.before.strip() else 0
        # Inside a list everything is indented by as much as its fences.
        lines = (line[min(margin, len(line) - len(line.lstrip(" \t"))) :] for line in self.lines)
        return "\n".join(lines) + ("\n" if self.closed and self.lines else "")


def program_of(response: str) -> str:
    """Return the code of a response, or all of it where it holds no block."""
    blocks = list(_blocks(response))
    python = [block for block in blocks if block.language.startswith("py")]
    plain = [block for block in blocks if not block.language or block in python]
    candidates = [_joined(chosen) for chosen in (plain, python, *([block] for block in (python or plain)), blocks)]
    filled = [code for code in candidates if code.strip()]
    return next((code for code in filled if is_python(code)), filled[0] if filled else response)


def is_python(code: str) -> bool:
    """Tell whether a text can be parsed as Python; nothing of it is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _joined(blocks: list[_Block]) -> str:
    return "\n".join(block.code for block in blocks)


def _blocks(response: str) -> Iterator[_Block]:
    block: _Block | None = None
    for line in response.split("\n"):
        fence = _fence(line)
        if block is None:
            block = _Block(fence) if fence and fence.opens else None
        elif fence is None or not fence.ends(block.fence):
            block.lines.append(line.rstrip("\r"))
        else:
            if fence.before.strip():
                block.lines.append(fence.before)
            block.closed = True
            yield block
            info = fence.info.strip()
            block = _Block(fence) if info and " " not in info else None
    if block is not None:
        yield block


def _fence(line: str) -> _Fence | None:
    found = _FENCE.match(line.rstrip("\r"))
    return _Fence(found["before"], found["fence"], found["info"]) if found else None
