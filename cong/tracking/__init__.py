"""MLflow: the only package that imports it."""

from cong.tracking.server import check_tracking, tracking_uri, ways_to_see, without_password
from cong.tracking.tracker import CELLS, PARENT, Tracker

__all__ = ["CELLS", "PARENT", "Tracker", "check_tracking", "tracking_uri", "ways_to_see", "without_password"]
