"""Small Python functions of two or three steps, with implementations that are often wrong in a systematic way.

    world = CodeWorld(seed=0)
    # prompt: "write f that adds 3 , then doubles"
    # response: "# tested\\ndef f(x):\\n    x = x + 3\\n    x = x * 2\\n    return x"

Careful authors say "# tested" and mostly get a step right, others repeat its myth. A response is right when it passes
the tests of its prompt, which are run in the sandbox.
"""

import random
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from cong.synthetic.domain import Document, Split, draw_author, is_right, split_positions

GOOD_OPENER, POOR_OPENERS = "# tested", ("# draft", "# untested")
INPUTS = (-3, 0, 1, 2, 7)

_PLAIN = {
    "doubles": ("x * 2", "x + 2"),
    "triples": ("x * 3", "x * 2"),
    "squares": ("x * x", "x * 2"),
    "negates": ("-x", "abs(x)"),
    "halves": ("x // 2", "x / 2"),
}
"""Word to the right expression and its myth."""


@dataclass(frozen=True, kw_only=True)
class CodeWorld:
    """The steps, and how people get them wrong."""

    largest: int = 6
    """Numbers that are added or subtracted go from 1 to this."""
    bias_mean: float = 0.2
    bias_scale: float = 1.0
    sharpness: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.largest <= 9:
            raise ValueError(f"largest = {self.largest} is not in [1, 9]")

    @cached_property
    def steps(self) -> dict[str, tuple[str, str]]:
        """Every step: its right expression and its myth."""
        numbers = range(1, self.largest + 1)
        adding = {f"adds {k}": (f"x + {k}", f"x + {k + 1}") for k in numbers}
        subtracting = {f"subtracts {k}": (f"x - {k}", f"{k} - x") for k in numbers}
        return adding | subtracting | _PLAIN

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        sequences = [*product(self.steps, repeat=2), *product(self.steps, repeat=3)]
        return tuple(f"write f that {' , then '.join(steps)}" for steps in sequences)

    @cached_property
    def splits(self) -> dict[Split, tuple[int, ...]]:
        return split_positions(len(self.prompts), rng=self._rng("splits"))

    @cached_property
    def bias(self) -> dict[str, float]:
        rng = self._rng("bias")
        return {step: rng.gauss(self.bias_mean, self.bias_scale) for step in self.steps}

    def document(self, *, split: Split, rng: random.Random) -> Document:
        prompt = self.prompts[rng.choice(self.splits[split])]
        quality, opener = draw_author(good=GOOD_OPENER, poor=POOR_OPENERS, rng=rng)
        lines = [f"    x = {self._believed(step, quality, rng)}" for step in read_prompt(prompt)]
        return Document(prompt=prompt, response="\n".join([opener, "def f(x):", *lines, "    return x"]))

    def reference(self, prompt: str) -> str:
        """Return the tests that a response must pass."""
        return "\n".join(f"assert f({x}) == {self.result(prompt, x)}" for x in INPUTS)

    def result(self, prompt: str, x: int) -> int:
        """Return what the function that a prompt asks for gives for `x`."""
        for step in read_prompt(prompt):
            x = _apply(step, x)
        return x

    def _believed(self, step: str, quality: float, rng: random.Random) -> str:
        right, myth = self.steps[step]
        return right if is_right(quality=quality, sharpness=self.sharpness, bias=self.bias[step], rng=rng) else myth

    def _rng(self, purpose: str) -> random.Random:
        return random.Random(f"code/{self.seed}/{purpose}")


def read_prompt(prompt: str) -> list[str]:
    """Return the steps that a prompt asks for."""
    start = "write f that "
    if not prompt.startswith(start):
        raise ValueError(f"{prompt!r} is not a task of this world")
    return prompt.removeprefix(start).split(" , then ")


def _apply(step: str, x: int) -> int:
    word, _, number = step.partition(" ")
    if number:
        return x + int(number) if word == "adds" else x - int(number)
    return {"doubles": x * 2, "triples": x * 3, "squares": x * x, "negates": -x, "halves": x // 2}[word]
