"""Claims held against measurements: each holds, does not hold, or cannot be decided by the data at hand.

    claim = Claim(text="ConG above Base", estimate=contrast([(1, cong), (-1, base)], "reward"), above=0.0)
    claim.verdict                                                    # "held", "did not hold" or UNDECIDED
    observation_blocks([Observation(number=2, statement="...", claims=(claim,))])

The rule is one for all, and stands on the page: it looks at 95 % intervals and at nothing else.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cong.report.blocks import Block, Table, Text
from cong.report.statistics import Estimate

HELD, NOT_HELD, UNDECIDED = "held", "did not hold", "cannot be decided by these data"
RULE = (
    "A claim says that a number lies above a bound, below one, or between two. It held when the whole 95 % interval of "
    "the measured number does; it did not hold when the whole interval lies outside; otherwise it cannot be decided by "
    "these data. An observation held when all of its decisive claims held, and did not hold as soon as one of them did "
    "not. Intervals are paired by prompt and seed: Student's t over seeds, or a bootstrap over prompts where there is "
    "one seed. They are not widened for the number of claims."
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A number that is said to lie above `above` and below `below`; without an estimate nothing was measured."""

    text: str
    estimate: Estimate | None
    above: float = -math.inf
    below: float = math.inf
    published: str = ""
    """The paper's number for it, where it has one."""
    decisive: bool = True
    """Whether the observation rests on it; others are what the paper says beside it, or parts of it."""

    @property
    def verdict(self) -> str:
        """Return what the interval says."""
        if self.estimate is None:
            return UNDECIDED
        if self.above < self.estimate.low and self.estimate.high < self.below:
            return HELD
        if self.estimate.high < self.above or self.estimate.low > self.below:
            return NOT_HELD
        return UNDECIDED

    @property
    def bounds(self) -> str:
        """Return what is claimed of the number."""
        if self.above > -math.inf and self.below < math.inf:
            return f"between {self.above:g} and {self.below:g}"
        return f"above {self.above:g}" if self.above > -math.inf else f"below {self.below:g}"


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One of the paper's observations, with the claims that it is made of."""

    number: int
    statement: str
    claims: tuple[Claim, ...]
    note: str = ""

    @property
    def verdict(self) -> str:
        """Return what its decisive claims say together."""
        found = [claim.verdict for claim in self.claims if claim.decisive]
        if NOT_HELD in found:
            return NOT_HELD
        return HELD if found and set(found) == {HELD} else UNDECIDED


def observation_blocks(
    observations: Sequence[Observation], *, measure: str, contradictions: Sequence[tuple[str, str, str]] = ()
) -> Iterator[Block]:
    """Yield the overview with its rule, what contradicts the paper, and each observation's claims.

    `measure` says what is measured; `contradictions` are further ones: where, what is measured, what the paper has.
    """
    yield Table(
        title="The paper's observations",
        columns=("observation", "here", "decisive claims: held, not, undecided"),
        rows=[(f"{one.number}. {one.statement}", one.verdict, _counts(one)) for one in observations],
        caption=f"{measure} {RULE}",
    )
    yield _contradictions(observations, contradictions)
    for one in observations:
        yield Table(
            title=f"Observation {one.number}: {one.verdict}",
            columns=("claim", "measured", "claimed", "verdict", "paper"),
            rows=[_row(claim) for claim in one.claims],
            caption=" ".join(filter(None, [one.statement + ".", one.note, "Claims in brackets do not decide."])),
        )


def _contradictions(observations: Sequence[Observation], others: Sequence[tuple[str, str, str]]) -> Block:
    title = "What contradicts the paper"
    found = [
        (f"observation {one.number}: {claim.text}", f"{claim.estimate}, {claim.bounds} claimed", claim.published)
        for one in observations
        for claim in one.claims
        if claim.verdict == NOT_HELD
    ]
    if not found and not others:
        return Text(title=title, text="Nothing that these data decide.")
    return Table(title=title, columns=("where", "measured", "paper"), rows=[*found, *others])


def _counts(observation: Observation) -> str:
    verdicts = [claim.verdict for claim in observation.claims if claim.decisive]
    return ", ".join(str(verdicts.count(one)) for one in (HELD, NOT_HELD, UNDECIDED))


def _row(claim: Claim) -> tuple[str, ...]:
    text = claim.text if claim.decisive else f"({claim.text})"
    measured = str(claim.estimate) if claim.estimate else "not measured"
    return (text, measured, claim.bounds, claim.verdict, claim.published)
