"""Fixtures that more than one test file needs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cong.graph.store import Store

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    made = Store(tmp_path / "store")
    made.prepare()
    return made


@pytest.fixture(scope="session")
def ray_of_two_cpus() -> Iterator[None]:
    """One Ray for all tests that need it: starting one takes seconds."""
    import ray
    import toy

    ray.cloudpickle.register_pickle_by_value(toy)
    if not ray.is_initialized():
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
