"""How much of the gap between a weak model, or the base, and a ceiling a student recovers.

    recovered(student, floor=weak, ceiling=ceiling)      # PGR, performance gap recovered
    recovered(student, floor=base, ceiling=ceiling)      # Recovery

PGR = (student - weak) / (ceiling - weak) is the headline figure of weak-to-strong generalization (Burns et al., 2023,
arXiv:2312.09390, section 3); Recovery = (student - base) / (ceiling - base). Both are shares of one gap, without a
unit: an affine change of the reward that keeps its direction changes neither. 1 is the ceiling, 0 the floor. Above 1
the student is better than the ceiling, which is legitimate; below 0 it is worse than the floor.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from cong.experiment import Results
from cong.methods import BASE, CEILING, WEAK, WEAK_ALIGNED
from cong.report.resampling import paired_tables, percentile_interval, resampled_means
from cong.report.statistics import Estimate
from cong.report.tables import Entry

UNDEFINED = "undefined"
PGR, RECOVERY = "PGR", "Recovery"
UNALIGNED = (WEAK, "Weak SFT (pre)", "AuxConf")
"""Rows whose weak model is the unaligned one: what they are trained on are its responses."""
GAP_ENDS = (WEAK, WEAK_ALIGNED, BASE, CEILING)
"""Rows that a gap is measured with: no methods that could be the best."""
SHARES_NOTE = (
    "Of the shares: bootstrap over prompts and seeds together, too narrow with few seeds; undefined where the gap's "
    "interval is not above 0. PGR: from the aligned weak model (Weak, Weak SFT (pre), AuxConf: the unaligned one) to "
    "Ceiling, the strong model aligned with the true reward; Recovery: from Base to Ceiling."
)


def recovered(
    student: Results, *, floor: Results, ceiling: Results, name: str = "reward", seed: int = 0
) -> Estimate | None:
    """Return the share of the gap from floor to ceiling that the student recovers; None where it is undefined.

    It is the quotient of two means over seeds. Its 95 % interval is a percentile bootstrap over prompts and seeds
    together: a resample draws seeds, and within each its prompts, the same for all three terms. With one seed the
    interval does not hold the spread between seeds, with a few it is too narrow. Undefined is the share where the
    interval of the gap is not wholly above 0: then it is not known that there is a gap.
    """
    tables = paired_tables([student, floor, ceiling], name=name)
    if not tables:
        return None
    drawn = resampled_means(tables, seed=seed)
    gaps = drawn[:, 2] - drawn[:, 1]
    if not percentile_interval(gaps)[0] > 0:
        return None
    # Of the resamples 2.5 % at most have no gap, and no share.
    kept = gaps > 0
    low, high = percentile_interval((drawn[kept, 0] - drawn[kept, 1]) / gaps[kept])
    one, lowest, highest = (sum(float(table[:, term].mean()) for table in tables) for term in range(3))
    return Estimate(mean=(one - lowest) / (highest - lowest), low=low, high=high, seeds=len(tables))


def shares(name: str, rewards: Mapping[str, Results], *, ceilings: Sequence[str] = (CEILING,)) -> list[Entry]:
    """Return a row's PGR to each of the ceilings, and its Recovery, as cells of a table; `rewards` is by row."""
    weak = rewards[WEAK if name in UNALIGNED else WEAK_ALIGNED]
    recoveries = [recovered(rewards[name], floor=weak, ceiling=rewards[ceiling]) for ceiling in ceilings]
    recoveries.append(recovered(rewards[name], floor=rewards[BASE], ceiling=rewards[CEILING]))
    return [Entry(text=share_text(share), value=None if share is None else share.mean) for share in recoveries]


def unranked(entries: Sequence[Entry]) -> list[Entry]:
    """Return the same cells, of which none can be the best of its column."""
    return [dataclasses.replace(entry, value=None) for entry in entries]


def share_text(found: Estimate | None) -> str:
    """Return a share as it is printed in a table."""
    return UNDEFINED if found is None else str(found)
