"""RAVEN: several weak pairs teach the strong model at once, under a shift of distribution some of them wrongly.

    t, other, shifted = (transition(...), ...)
    student = raven(t, members=(t.implicit, other.implicit, shifted.implicit))

A weak pair may be of any family or world: its implicit reward reads texts.
"""

from collections.abc import Sequence

from cong.methods.transitions import Transition
from cong.scoring import CommitteePairs, MemberAgreement, Reward, Score
from cong.training import Raven


def raven(t: Transition, *, members: Sequence[Reward], rate: float | None = None, easy: float = 0.5) -> Raven:
    """RAVEN (arXiv:2510.21332): DPO on the strong model's candidates; the weights of the members' rewards are learned.

    With a rate of 0 the weights stay uniform, None takes the scale's; one member alone has the weight 1.
    """
    moved = t.scale.committee_rate if rate is None else rate
    data = committee_pairs(t, members=members)
    return Raven(model=t.strong, data=data, rate=moved, easy=easy, seed=t.seed, **vars(t.scale.alignment))


def committee_pairs(t: Transition, *, members: Sequence[Reward]) -> CommitteePairs:
    """The first two candidates of the strong model that differ, with what each member says of them."""
    own = t.candidates(t.strong)
    return CommitteePairs(scored=tuple(Score(responses=own, judge=member) for member in members))


def member_agreement(t: Transition, *, members: Sequence[Reward]) -> MemberAgreement:
    """How often each member has a pair the way round that the true reward has."""
    truth = Score(responses=t.candidates(t.strong), judge=t.reward)
    return MemberAgreement(pairs=committee_pairs(t, members=members), truth=truth)
