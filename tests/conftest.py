"""Fixtures that more than one test file needs."""

import gc
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import SECRET

from cong.graph.store import Store
from cong.run.job import Job

SECRETS = ("HF_TOKEN", "OPENAI_API_KEY", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

SLOW = {
    "test_decode_command", "test_dashboard", "test_experiment", "test_faults", "test_generation", "test_judging",
    "test_kills", "test_local_cluster", "test_method_experiments", "test_methods", "test_object_store",
    "test_object_store_nodes", "test_pairs", "test_report_in_a_browser", "test_run", "test_sandbox", "test_slurm",
    "test_status", "test_submit", "test_sweep", "test_synthetic_models", "test_tracker_faults", "test_tracking",
    "test_training_beginnings", "test_training_loop", "test_training_ray", "test_training_resume",
}  # fmt: skip
"""Files that start a cluster or a server, kill processes, or train: `make test-quick` leaves them out."""
GROUPS = {
    "clusters": {
        "test_faults", "test_kills", "test_local_cluster", "test_object_store_nodes", "test_slurm", "test_submit",
    },
    "ray": {
        "test_function_rewards", "test_generation", "test_graph", "test_search_stage", "test_sweep",
        "test_training_ray",
    },
}  # fmt: skip
"""Files that go to the same of two test processes: those that start clusters, for at no time are there two, and those
that use the one local Ray, which takes seconds to start."""
SLOW_FIXTURES = {"ray_of_two_cpus", "small_run"}
"""What uses one of these is slow, wherever it is."""

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray Train looks at its workers every 2 s, and has one process more, for nodes that are about to be taken away.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
# Tests in the background of a shell are started deaf to interrupts, and so would be all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        # The longest of all first, one in each process; the shorter files fill up what is left.
        order = [*GROUPS, None]
        items.sort(key=lambda item: order.index(_group(item.path.stem)))
    for item in items:
        if item.path.stem in SLOW or not SLOW_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file whole to one of the test processes, and all files of a group to the same."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return _group(Path(file).stem) or file

    return Scheduling(config, log)


def _group(stem: str) -> str | None:
    return next((name for name, files in GROUPS.items() if stem in files), None)


# While the tests are collected the large libraries are imported, which takes a fourth less time without.
gc.disable()


def pytest_collection_finish() -> None:
    # The large libraries are imported by now. Trainers collect garbage time and again, and would look through all that.
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    made = Store(tmp_path / "store")
    made.prepare()
    return made


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The database that MLflow makes in a store, made once: that takes seconds."""
    from cong.tracking import database
    from cong.tracking.server import connect

    root = tmp_path_factory.mktemp("database")
    database.prepare(root, connect=connect)
    return (root / database.NAME).read_bytes()


@pytest.fixture(scope="session")
def ray_of_two_cpus() -> Iterator[None]:
    """One Ray for all tests that need it: starting one takes seconds."""
    import ray
    import toy
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(toy)
    if not ray.is_initialized():
        # Beside a cluster of the other test process, which Ray would take otherwise.
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The small experiment, run once in this process without Ray, with secrets in the environment."""
    from cong.graph.resources import Resources
    from cong.run import launch
    from cong.run.job import prepare

    with pytest.MonkeyPatch.context() as patch:
        for name in SECRETS:
            patch.setenv(name, f"{SECRET}-{name}")
        job = prepare(
            Path(__file__).parent / "small.py",
            scale="tiny",
            assignments=["alpha=0.4"],
            resources=Resources(name="inline").changed(ray=False, actors=0, micro_tokens=4096),
            store=Store(tmp_path_factory.mktemp("small") / "store"),
        )
        launch.run(job)
    return job


@pytest.fixture
def browser() -> Iterator[Any]:
    """A headless Chromium: `CONG_BROWSER`, or one on the path."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("CONG_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("there is no Chromium: none on the path, and CONG_BROWSER names none")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=path, args=["--no-sandbox", "--no-zygote", "--disable-gpu"])
        yield opened
        opened.close()
