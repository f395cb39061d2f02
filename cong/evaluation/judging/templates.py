"""What a judge is asked: a system message, and a user message with the instruction and both outputs.

    ALPACA_EVAL_2.messages(instruction="Say hi.", first="Hi!", second="No.")

The three prompts are those of AlpacaEval 2 and Arena-Hard, both Apache-2.0: with other words their numbers would not
compare. The text is part of a judge's identity, and `version` says to a reader which one it is.
"""

import re
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent / "prompts"
_MARK = "\n<<<user>>>\n"
_SLOT = re.compile(r"\{(instruction|output_1|output_2)\}")


@dataclass(frozen=True, kw_only=True)
class Template:
    """A prompt with the slots `{instruction}`, `{output_1}` and `{output_2}` in its user message."""

    name: str
    version: str
    system: str
    user: str

    def __post_init__(self) -> None:
        slots = {found.group(1) for found in _SLOT.finditer(self.user)}
        if len(slots) < 3:
            missing = sorted({"instruction", "output_1", "output_2"} - slots)
            raise ValueError(f"template {self.name!r} has no slot {{{missing[0]}}} in its user message")

    def messages(self, *, instruction: str, first: str, second: str) -> list[dict[str, str]]:
        """Return the messages; a slot's name inside a text is left as it is."""
        values = {"instruction": instruction, "output_1": first, "output_2": second}
        content = _SLOT.sub(lambda found: values[found.group(1)], self.user)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": content}]


def _shipped(name: str, version: str) -> Template:
    system, user = (_HERE / f"{name}.txt").read_text().removesuffix("\n").split(_MARK)
    return Template(name=name, version=version, system=system, user=user)


ALPACA_EVAL_2 = _shipped("alpaca_eval_2", "alpaca_eval 0.6.6, alpaca_eval_clf")
ARENA_HARD = _shipped("arena_hard", "v0.1, and v2.0 but for creative writing")
ARENA_HARD_CREATIVE = _shipped("arena_hard_creative", "v2.0, creative writing")
