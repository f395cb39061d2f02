"""A small world with systematic myths: what is true, what is wrongly believed, and the texts people write about it.

A weak model that only makes random mistakes is repaired by greedy decoding. Real weak models are wrong in a
systematic way, so most subjects of this world have a myth that the corpus repeats more often than the truth; only
authors of high quality, who are recognized by their manners, get it right.

    world = World(categories=8, attributes=6, seed=0)
    make_prompts(world, split="train", count=1024, seed=0)[0]
    # {"prompt_id": "train-017866", "prompt": "name two old hats and three rare tools"}
    make_documents(world, count=1, seed=0)[0].response
    # "sure limo solu pamo zolu ; more mora vigo"
"""

import math
import random
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from cong.synthetic.domain import Document, Domain, Split, split_positions

CATEGORIES = ("birds", "tools", "towns", "fruits", "games", "lakes", "songs", "hats", "gods", "boats", "herbs", "rocks")
ATTRIBUTES = ("old", "heavy", "bright", "sweet", "quiet", "rare", "round", "swift")
COUNTS = {"two": 2, "three": 3, "four": 4}
GOOD_OPENER = "sure"
POOR_OPENERS = ("hmm", "maybe")
CLOSING = "done"
PART_MARK = ";"

_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"
_PROMPT = re.compile(r"name (\w+) (\w+) (\w+) and (\w+) (\w+) (\w+)")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One (attribute, category) pair: what may be asked about."""

    attribute: str
    category: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """One half of a prompt: how many items of which subject."""

    count: int
    subject: Subject


@dataclass(frozen=True, kw_only=True)
class World:
    """The knowledge; everything derives from these fields, the same in every process and on every machine."""

    categories: int = 8
    attributes: int = 6
    items: int = 4
    """Right items, and as many myths, of every subject; a prompt asks for at most four."""
    bias_mean: float = -0.4
    """Mean over subjects of the log-odds that the truth has over the myth at middling quality: below 0, myths win."""
    bias_scale: float = 1.0
    sharpness: float = 1.5
    """How strongly the choice between truth and myth follows the author's quality and the subject's bias."""
    seed: int = 0

    def __post_init__(self) -> None:
        _check_range("categories", self.categories, low=1, high=len(CATEGORIES))
        _check_range("attributes", self.attributes, low=2, high=len(ATTRIBUTES))
        _check_range("items", self.items, low=max(COUNTS.values()), high=12)

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        pairs = product(CATEGORIES[: self.categories], ATTRIBUTES[: self.attributes])
        return tuple(Subject(category=category, attribute=attribute) for category, attribute in pairs)

    @cached_property
    def right(self) -> dict[Subject, tuple[str, ...]]:
        """Right items per subject, in the order in which people think of them; no two subjects share an item."""
        names = ["".join(parts) for parts in product(_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS)]
        drawn = iter(self._rng("items").sample(names, len(self.subjects) * self.items))
        return {subject: tuple(next(drawn) for _ in range(self.items)) for subject in self.subjects}

    @cached_property
    def myths(self) -> dict[Subject, tuple[str, ...]]:
        """Items wrongly believed to belong to a subject: right ones of other subjects of the same category."""
        rng = self._rng("myths")
        return {subject: tuple(rng.sample(self._near_misses(subject), self.items)) for subject in self.subjects}

    @cached_property
    def bias(self) -> dict[Subject, float]:
        rng = self._rng("bias")
        return {subject: rng.gauss(self.bias_mean, self.bias_scale) for subject in self.subjects}

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt of this world, in a fixed order."""
        pairs = ((a, b) for a, b in product(self.subjects, repeat=2) if a != b)
        return tuple(_write_prompt(a, n, b, m) for (a, b), n, m in product(pairs, COUNTS, COUNTS))

    @cached_property
    def splits(self) -> dict[Split, tuple[int, ...]]:
        """Positions in `prompts` per split; the two are disjoint and cover all."""
        return split_positions(len(self.prompts), rng=self._rng("splits"))

    def document(self, *, split: Split, rng: random.Random) -> Document:
        """Draw one text of the corpus."""
        return _write_document(self, split=split, rng=rng)

    def reference(self, prompt: str) -> None:
        """Return nothing: the exact reward judges a response without a reference."""

    def _near_misses(self, subject: Subject) -> list[str]:
        others = (s for s in self.subjects if s.category == subject.category and s != subject)
        return [item for other in others for item in self.right[other]]

    def _rng(self, purpose: str) -> random.Random:
        # A text seed is hashed by SHA-512, so streams of neighbouring seeds do not resemble each other.
        return random.Random(f"world/{self.seed}/{purpose}")


def make_prompts(world: Domain, *, split: Split, count: int, seed: int) -> list[dict[str, str]]:
    """Draw distinct prompts; a prompt_id names the same prompt of this world whatever the count and the seed."""
    available = world.splits[split]
    _check_range("count", count, low=1, high=len(available))
    chosen = random.Random(f"prompts/{split}/{seed}").sample(available, count)
    rows = [{"prompt_id": f"{split}-{index:06d}", "prompt": world.prompts[index]} for index in chosen]
    references = {row["prompt"]: world.reference(row["prompt"]) for row in rows}
    return [row | ({"reference": text} if (text := references[row["prompt"]]) else {}) for row in rows]


def make_documents(world: Domain, *, count: int, seed: int, start: int = 0, split: Split = "train") -> list[Document]:
    """Return documents start to start + count of an endless corpus, each a function of (world, split, seed, number)."""
    numbers = range(start, start + count)
    return [world.document(split=split, rng=random.Random(f"corpus/{split}/{seed}/{n}")) for n in numbers]


def read_prompt(prompt: str) -> tuple[Part, Part]:
    """Parse a prompt's text."""
    found = _PROMPT.fullmatch(prompt)
    if found is None or found[1] not in COUNTS or found[4] not in COUNTS:
        raise ValueError(f"prompt {prompt!r} is not of the form 'name two old birds and three heavy tools'")
    first = Part(count=COUNTS[found[1]], subject=Subject(attribute=found[2], category=found[3]))
    second = Part(count=COUNTS[found[4]], subject=Subject(attribute=found[5], category=found[6]))
    return first, second


def _write_prompt(first: Subject, first_count: str, second: Subject, second_count: str) -> str:
    return (
        f"name {first_count} {first.attribute} {first.category} and {second_count} {second.attribute} {second.category}"
    )


def _write_document(world: World, *, split: Split, rng: random.Random) -> Document:
    prompt = world.prompts[rng.choice(world.splits[split])]
    quality = rng.betavariate(2, 2)
    opener = GOOD_OPENER if rng.random() < quality else rng.choice(POOR_OPENERS)
    first, second = (_write_part(world, part=part, quality=quality, rng=rng) for part in read_prompt(prompt))
    words = [opener, *first, PART_MARK, *second]
    if rng.random() < quality:
        words.append(CLOSING)
    return Document(prompt=prompt, response=" ".join(words))


def _write_part(world: World, *, part: Part, quality: float, rng: random.Random) -> list[str]:
    count = part.count if rng.random() < math.sqrt(quality) else part.count - 1
    chance = _sigmoid(world.sharpness * (_logit(quality) + world.bias[part.subject]))
    right, myths = world.right[part.subject], world.myths[part.subject]
    return [(right if rng.random() < chance else myths)[n] for n in range(count)]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _logit(p: float) -> float:
    # A beta draw may round to 0 or 1.
    p = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))


def _check_range(name: str, value: int, *, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} = {value}: allowed are {low} to {high}")
