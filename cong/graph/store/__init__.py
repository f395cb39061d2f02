"""Where finished stages are kept: a directory, or a bucket with a cache, and the leases on both."""

from cong.graph.store.directory import (
    BEGUN,
    FOREIGN,
    NOT_FINISHED,
    ORIGIN,
    RECORD,
    STALE,
    SUCCESS,
    Store,
    collision,
    generation_of,
    store_at,
)
from cong.graph.store.interface import StageStore

__all__ = [
    "BEGUN",
    "FOREIGN",
    "NOT_FINISHED",
    "ORIGIN",
    "RECORD",
    "STALE",
    "SUCCESS",
    "StageStore",
    "Store",
    "collision",
    "generation_of",
    "store_at",
]
