"""People as judges: a blinded sample to rate, the ratings that come back, and the agreement between judges."""

from cong.evaluation.rating.agreement import Agreement, OrderAgreement, agreements, orders
from cong.evaluation.rating.ratings import AGREEMENT, ORDER, RATINGS, WIN_RATES, Ratings
from cong.evaluation.rating.sample import KEY, PAGE, TABLE, RatingSample
from cong.evaluation.rating.simulated import SimulatedRaters

__all__ = [
    "AGREEMENT",
    "KEY",
    "ORDER",
    "PAGE",
    "RATINGS",
    "TABLE",
    "WIN_RATES",
    "Agreement",
    "OrderAgreement",
    "RatingSample",
    "Ratings",
    "SimulatedRaters",
    "agreements",
    "orders",
]
