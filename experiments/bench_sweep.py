"""What does sharing save in a sweep, what does orchestration cost, and does it survive being killed again and again?

Runs a sweep in an empty store and says which stages were computed how often, how long the stages and the whole took,
and what the cells one by one would have taken (estimated from the stages' seconds). Runs it again when all is cached.
With `--kills` it also runs it in a second store, kills the driver (SIGKILL) at random moments, starts it again each
time, and compares the tables of the two reports.

    python experiments/bench_sweep.py --kills 10 --store sweep
"""

import argparse
import json
import math
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from cong.experiment.grid import expand
from cong.graph.resources import load_profile
from cong.graph.stage import topological
from cong.graph.store import Store
from cong.run.job import prepare

EXPERIMENT = Path(__file__).with_name("alpha_sweep.py")


def command(store: Path, arguments: argparse.Namespace) -> list[str]:
    """Return the sweep as it is typed."""
    grid = [word for text in arguments.grid for word in ("--grid", text)]
    options = ["--profile", arguments.profile, "--store", str(store)]
    return [sys.executable, "-m", "cong.cli", "run", str(EXPERIMENT), *grid, *options]


def run(store: Path, arguments: argparse.Namespace, *, log: Path, kill_after: float | None = None) -> float | None:
    """Run the sweep, or kill it after so many seconds; return its seconds, or None when it was killed."""
    started = time.monotonic()
    with log.open("a") as file:
        process = subprocess.Popen(command(store, arguments), stdout=file, stderr=file, start_new_session=True)
        try:
            status = process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return None
    if status:
        sys.exit(f"the sweep ended with {status}; see {log}")
    return time.monotonic() - started


def describe(store: Store, arguments: argparse.Namespace, *, wall: float) -> None:
    """Print how often each kind of stage was computed, and what that took with and without sharing."""
    job = prepare(EXPERIMENT, scale="tiny", assignments=[], grid=tuple(arguments.grid),
                         resources=load_profile(arguments.profile), store=store)  # fmt: skip
    assert not job.plan.todo
    seconds = {stage.fingerprint: store.record(stage)["seconds"] for stage in job.plan.stages}
    count = Counter(stage.name for stage in job.plan.stages)
    print(f"{len(job.cells)} cells, {len(job.plan.stages)} stages: {wall:.1f} s in all, commands' start included")
    print("computed:", ", ".join(f"{name} {number}" for name, number in count.most_common()))
    alone = [sum(seconds[stage.fingerprint] for stage in topological([cell.stage])) for cell in job.cells]
    shared = sum(seconds.values())
    print(f"stages' own seconds: {shared:.1f} shared, {sum(alone):.1f} cell by cell ({sum(alone) / shared:.1f} times)")
    lanes = job.resources.cluster.cpus or 1
    print(f"not in stages: {1 - shared / (lanes * wall):.0%} of {lanes} x {wall:.1f} s")


def describe_cached(store: Path, arguments: argparse.Namespace, *, log: Path) -> None:
    """Print what a cached cell costs: all cells against the first one, each three times in turn."""
    first = argparse.Namespace(**{**vars(arguments), "grid": [_first_point(text) for text in arguments.grid]})
    cells = math.prod(len(expand(text.partition("=")[2])) for text in arguments.grid)
    pairs = [(run(store, first, log=log), run(store, arguments, log=log)) for _ in range(3)]
    one, all_of_them = (statistics.median(side) for side in zip(*pairs, strict=True))
    each = 1000 * (all_of_them - one) / (cells - 1)
    print(f"all cached: 1 cell {one:.2f} s, {cells} cells {all_of_them:.2f} s, so {each:.0f} ms for each further cell")


def _first_point(text: str) -> str:
    axis, _, values = text.partition("=")
    return f"{axis}={expand(values)[0]}"


def tables(store: Path) -> str:
    """Return the report's tables of results, without what depends on time."""
    text = next((store / "reports").glob("*/*.md")).read_text()
    return re.split(r"^## What each method cost", text, flags=re.MULTILINE)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", action="append", help="AXIS=VALUES; default alpha=0:1:0.1 and beta=0.1,0.5")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--store", type=Path, default=Path("bench_sweep"), help="holds two stores; deleted first")
    arguments = parser.parse_args()
    arguments.grid = arguments.grid or ["alpha=0:1:0.1", "beta=0.1,0.5"]
    shutil.rmtree(arguments.store, ignore_errors=True)
    arguments.store.mkdir(parents=True)
    calm, rough = arguments.store.resolve() / "calm", arguments.store.resolve() / "rough"
    wall = run(calm, arguments, log=arguments.store / "calm.log")
    assert wall is not None
    describe(Store(calm), arguments, wall=wall)
    describe_cached(calm, arguments, log=arguments.store / "calm.log")
    if not arguments.kills:
        return
    rng, ended = random.Random(arguments.seed), []
    for _ in range(arguments.kills):
        # So early that the sweep is seldom finished before the last kill; what ends before its kill is not counted.
        ended.append(run(rough, arguments, log=arguments.store / "rough.log", kill_after=rng.uniform(5, wall / 6)))
    last = run(rough, arguments, log=arguments.store / "rough.log")
    made = [json.loads(path.read_text())["stage"] for path in rough.glob("*/*/record.json")]
    print(f"{sum(found is None for found in ended)} kills, then {last:.1f} s; {len(made)} stages in the store")
    print("same tables:", tables(calm) == tables(rough))


if __name__ == "__main__":
    main()
