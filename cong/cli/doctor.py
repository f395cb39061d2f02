"""`cong doctor`: looks at everything a run stands on, and says what to do about what is missing."""

import importlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

from cong.errors import UserError
from cong.graph.resources import Resources
from cong.graph.store import StageStore

PACKAGES = ("torch", "transformers", "trl", "ray", "deepspeed", "datasets", "accelerate", "mlflow")
FREE_GB = 5.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. A finding that is not `needed` is no failure."""

    name: str
    good: bool
    text: str
    needed: bool = True


def examine(resources: Resources, store: StageStore) -> bool:
    """Print a line per finding; return whether nothing that is needed is missing."""
    healthy = True
    for finding in _findings(resources, store):
        mark = "ok  " if finding.good else ("FAIL" if finding.needed else "note")
        print(f"{mark}  {finding.name:<14}{finding.text}", flush=True)
        healthy = healthy and (finding.good or not finding.needed)
    return healthy


def _findings(resources: Resources, store: StageStore) -> Iterator[Finding]:
    yield _python()
    yield from (_package(name) for name in PACKAGES)
    yield _guarded("devices", lambda: _device(resources))
    yield _guarded("store", lambda: _store(store))
    yield _guarded("tracking", lambda: _tracking(store))
    yield _guarded("ray", lambda: _ray(resources))
    yield _hub()


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding(
        name="python", good=good, text=platform.python_version() + ("" if good else ": 3.11 or newer is needed")
    )


def _package(name: str) -> Finding:
    try:
        importlib.import_module(name)
        return Finding(name=name, good=True, text=metadata.version(name))
    except Exception as error:
        advice = "install cong again, with its dependencies"
        return Finding(name=name, good=False, text=f"{type(error).__name__}: {error}; {advice}")


def _device(resources: Resources) -> Finding:
    import torch

    count = torch.cuda.device_count()
    found = (
        ", ".join(torch.cuda.get_device_name(index) for index in range(count)) or f"{os.cpu_count()} CPUs, no GPU here"
    )
    missing = resources.hardware.device == "cuda" and count == 0 and resources.cluster.address is None
    advice = (
        f"; profile {resources.name} wants GPUs: use a CPU profile or give --address of a cluster" if missing else ""
    )
    return Finding(name="devices", good=not missing, text=found + advice)


def _store(store: StageStore) -> Finding:
    store.prepare()
    free = store.free_bytes() / 2**30
    advice = "" if free > FREE_GB else f": below {FREE_GB:g} GB, choose another place with --store"
    return Finding(name="store", good=free > FREE_GB, text=f"{store} can be written, {free:.0f} GB free{advice}")


def _tracking(store: StageStore) -> Finding:
    from cong.tracking import check_tracking, tracking_uri, without_password

    check_tracking(store)
    return Finding(name="tracking", good=True, text=without_password(tracking_uri(store)))


def _ray(resources: Resources) -> Finding:
    from cong.graph.cluster import connected

    with connected(resources) as capacity:
        where = resources.cluster.address or "started here"
        return Finding(name="cluster", good=True, text=f"{where}: {capacity}")


def _hub() -> Finding:
    from cong.models import check_hub
    from cong.scales import CHECKPOINTS

    repo, revision = CHECKPOINTS["qwen", "3B"]
    try:
        check_hub(repo, revision)
        return Finding(name="hub", good=True, text=f"{repo} is available")
    except UserError as error:
        return Finding(name="hub", good=False, text=f"{error} (needed at paper scale only)", needed=False)


def _guarded(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except (UserError, ImportError) as error:
        return Finding(name=name, good=False, text=str(error))
