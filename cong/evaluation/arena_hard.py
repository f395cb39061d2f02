"""Arena-Hard: win rate (WR) and style-controlled win rate (SC) with confidence intervals, as v0.1 and v2.0 have them.

Every question is judged twice: in game 1 the baseline is assistant A, in game 2 the model is. `>>` counts three times.

    games = [Games(question="q1", model="m", first="B>A", second="A>>B"), ...]
    arena_hard(games, version="v0.1")["m"].win_rate                             # per cent
    arena_hard(games, styles=styles, version="v2.0")["m"].style_controlled      # {(model or BASELINE, question): Style}

The two versions differ in more than their judges: see `verdict_of`, `battles_of` and `cong.evaluation.bradley_terry`.
v0.1 is all of one era, that of the benchmark's code at commit 0489bf3, which its published v0.1 figures come from:
verdicts stand in double brackets, two different ones in a judgment are none, and five labels count. v2.0 is the era of
commit 196f6b8, whose code would read v0.1's judgments otherwise too.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cong.evaluation.bradley_terry import Battle, Interval, style_v01, style_v2, win_rate_v01, win_rate_v2
from cong.evaluation.markdown import Style

Version = Literal["v0.1", "v2.0"]
WEIGHT = 3
ROUNDS = 100
BASELINE = ""
"""Stands for the baseline where a model's name is expected."""
_DOUBLE, _SINGLE = re.compile(r"\[\[([AB<>=]+)\]\]"), re.compile(r"\[([AB<>=]+)\]")
# Assistant A's share of a win, and how often it counts.
_FIVE = {"A>>B": (1.0, WEIGHT), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, WEIGHT)}
# Judges also write the five labels the other way round.
_LABELS = _FIVE | {
    "B<<A": (1.0, WEIGHT), "B<A": (1.0, 1), "B=A": (0.5, 1), "A<B": (0.0, 1), "A<<B": (0.0, WEIGHT),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Games:
    """The verdicts of the two games of a question; None where the judge gave none."""

    question: str
    model: str
    first: str | None
    second: str | None


@dataclass(frozen=True, kw_only=True)
class ArenaHard:
    """A model's WR and SC in per cent.

    `battles` counts every game with its weight, `dropped` the games (v0.1) or questions (v2.0) without a verdict.
    """

    win_rate: Interval
    style_controlled: Interval | None
    battles: int
    dropped: int


def verdict_of(judgment: str, *, version: Version = "v2.0") -> str | None:
    """Return the verdict in a judgment, None where there is none.

    v0.1 takes one of its five labels as it stands in double brackets, unless two differ. v2.0 takes the last label,
    upper-cased and whatever it says: in double brackets, or else in single ones.
    """
    if version == "v0.1":
        found = set(_DOUBLE.findall(judgment))
        return next(iter(found & set(_FIVE)), None) if len(found) == 1 else None
    for pattern in (_DOUBLE, _SINGLE):
        matches = pattern.findall(judgment.upper())
        if matches:
            return matches[-1]
    return None


def share_of_a(label: str | None) -> float | None:
    """Return assistant A's share of a win under a label, None for what is no verdict."""
    return _LABELS[label][0] if label in _LABELS else None


def battles_of(games: Sequence[Games], *, version: Version) -> tuple[list[Battle], int]:
    """Return the battles of all questions, and how many games (v0.1) or questions (v2.0) had no usable verdict.

    A label that means nothing, such as `AB`, counts as none.
    """
    found: list[Battle] = []
    dropped = 0
    for row in games:
        # The model is assistant B in game 1 and assistant A in game 2.
        first, second = _LABELS.get(row.first or ""), _LABELS.get(row.second or "")
        sides = [None if first is None else (1 - first[0], first[1]), second]
        if version == "v2.0":
            dropped += None in sides
            sides = [] if None in sides else sides[::-1]
        else:
            dropped += sides.count(None)
        for share, weight in filter(None, sides):
            found += [Battle(question=row.question, model=row.model, share=share)] * weight
    return found, dropped


def arena_hard(
    games: Sequence[Games],
    *,
    version: Version,
    styles: Mapping[tuple[str, str], Style] | None = None,
    seed: int = 42,
) -> dict[str, ArenaHard]:
    """Return WR, and SC where styles are given, of every model.

    All models share one fit of the style's weights, in which a style counts from the mean of all battles: SC compares
    models at their common style. So it says something only of several models at once, and depends on which they are.
    """
    battles, _ = battles_of(games, version=version)
    plain, styled = (win_rate_v01, style_v01) if version == "v0.1" else (win_rate_v2, style_v2)
    rates = plain(battles, rounds=ROUNDS, seed=seed)
    controlled = {}
    if styles is not None:
        pairs = [(styles[battle.model, battle.question], styles[BASELINE, battle.question]) for battle in battles]
        controlled = styled(battles, pairs, rounds=ROUNDS, seed=seed)
    found = {}
    for model, interval in rates.items():
        own, dropped = battles_of([row for row in games if row.model == model], version=version)
        found[model] = ArenaHard(
            win_rate=interval, style_controlled=controlled.get(model), battles=len(own), dropped=dropped
        )
    return found
