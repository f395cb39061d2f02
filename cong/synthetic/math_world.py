"""Word problems of two steps, with worked solutions that are often wrong in a systematic way.

As in the chat world an author's quality decides: careful ones begin with "carefully :" and mostly know their sums,
rough ones repeat the sum's own myth. A response is right when its final answer is.

    world = MathWorld(seed=0)
    # prompt: "ben has 7 eggs , finds 5 and then loses 3 . how many ?"
    # response: "carefully : 7 + 5 = 1 2 ; 1 2 - 3 = 9 #### 9"
"""

import random
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from cong.synthetic.domain import Document, Split, draw_author, is_right, pick, split_positions

NAMES = ("ben", "eva", "ida", "leo", "mia", "tom", "uma", "zed")
THINGS = ("eggs", "coins", "books", "cups", "pens", "nuts")
GAINS, LOSSES = ("finds", "buys"), ("loses", "sells")
GOOD_OPENER, POOR_OPENERS = "carefully :", ("roughly :", "quickly :")
ANSWER_MARK = "####"

_PROMPT = re.compile(r"\w+ has (\d+) \w+ , (\w+) (\d+) and then (\w+) (\d+) \. how many \?")

Sum = tuple[int, str, int]
"""First number, + or -, second number."""


@dataclass(frozen=True, kw_only=True)
class MathWorld:
    """The sums, and what is wrongly believed of them."""

    largest: int = 5
    """Numbers of a problem go from 1 to this: the smallest model is to know every sum that it meets."""
    tellings: int = 3
    """How many people each problem speaks of."""
    bias_mean: float = 0.0
    bias_scale: float = 1.0
    sharpness: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.largest <= 20:
            raise ValueError(f"largest = {self.largest} is not in [2, 20]")
        if not 1 <= self.tellings <= len(NAMES):
            raise ValueError(f"tellings = {self.tellings} is not in [1, {len(NAMES)}]")

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        rng, numbers = self._rng("prompts"), range(1, self.largest + 1)
        found = []
        verbs = (*GAINS, *LOSSES)
        for a, b, c, first, second in product(numbers, numbers, numbers, verbs, verbs):
            if all(_value(step) >= 0 for step in _steps(a, first, b, second, c)):
                problem = f"{first} {b} and then {second} {c} . how many ?"
                names = rng.sample(NAMES, self.tellings)
                found += [f"{name} has {a} {pick(THINGS, rng)} , {problem}" for name in names]
        return tuple(found)

    @cached_property
    def splits(self) -> dict[Split, tuple[int, ...]]:
        return split_positions(len(self.prompts), rng=self._rng("splits"))

    @cached_property
    def myths(self) -> dict[Sum, int]:
        """What is believed of every sum: off by one or two, and never below 0."""
        rng = self._rng("myths")
        return {found: max(_value(found) + rng.choice((-2, -1, 1, 2)), 0) for found in self._sums}

    @cached_property
    def bias(self) -> dict[Sum, float]:
        rng = self._rng("bias")
        return {found: rng.gauss(self.bias_mean, self.bias_scale) for found in self._sums}

    def document(self, *, split: Split, rng: random.Random) -> Document:
        prompt = self.prompts[rng.choice(self.splits[split])]
        quality, opener = draw_author(good=GOOD_OPENER, poor=POOR_OPENERS, rng=rng)
        a, first, b, second, c = read_prompt(prompt)
        middle = self._believed((a, _sign(first), b), quality, rng)
        # A wrong first step is carried on, as people do.
        end = self._believed((middle, _sign(second), c), quality, rng)
        steps = f"{a} {_sign(first)} {b} = {middle} ; {middle} {_sign(second)} {c} = {end}"
        return Document(prompt=prompt, response=f"{opener} {steps} {ANSWER_MARK} {end}")

    def reference(self, prompt: str) -> str:
        """Return the right final answer."""
        return str(_value(_steps(*read_prompt(prompt))[1]))

    def _believed(self, found: Sum, quality: float, rng: random.Random) -> int:
        bias = self.bias.get(found, self.bias_mean)
        right = is_right(quality=quality, sharpness=self.sharpness, bias=bias, rng=rng)
        return max(_value(found), 0) if right else self.myths.get(found, max(_value(found) + 1, 0))

    @cached_property
    def _sums(self) -> tuple[Sum, ...]:
        firsts, seconds = range(0, 3 * self.largest + 3), range(1, self.largest + 1)
        return tuple((a, sign, b) for a, sign, b in product(firsts, "+-", seconds) if _value((a, sign, b)) >= 0)

    def _rng(self, purpose: str) -> random.Random:
        return random.Random(f"math/{self.seed}/{purpose}")


def read_prompt(prompt: str) -> tuple[int, str, int, str, int]:
    """Parse a problem: first number, verb, number, verb, number."""
    found = _PROMPT.fullmatch(prompt)
    if found is None:
        raise ValueError(f"{prompt!r} is not a problem of this world")
    return int(found[1]), found[2], int(found[3]), found[4], int(found[5])


def _steps(a: int, first: str, b: int, second: str, c: int) -> tuple[Sum, Sum]:
    one = (a, _sign(first), b)
    return one, (_value(one), _sign(second), c)


def _sign(verb: str) -> str:
    return "+" if verb in GAINS else "-"


def _value(found: Sum) -> int:
    a, sign, b = found
    return a + b if sign == "+" else a - b
