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

__all__ = [
    "BEGUN",
    "FOREIGN",
    "NOT_FINISHED",
    "ORIGIN",
    "RECORD",
    "STALE",
    "SUCCESS",
    "Store",
    "collision",
    "generation_of",
    "store_at",
]
