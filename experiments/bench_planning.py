"""How long does it take to plan a large grid, and how much memory does it hold?

python experiments/bench_planning.py --cells 10000
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from cong.graph.resources import load_profile
from cong.graph.store import Store
from cong.run.job import prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        started = time.perf_counter()
        job = prepare(
            Path(__file__).with_name("alpha_sweep.py"),
            scale="tiny",
            assignments=[],
            grid=("alpha=0:1:0.01", f"beta=0.01:{max(arguments.cells // 101, 1) / 100:g}:0.01"),
            resources=load_profile("laptop"),
            store=Store(Path(store)),
        )
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    heavy = [name for name in ("torch", "ray", "mlflow", "transformers") if name in sys.modules]
    print(f"{len(job.cells)} cells, {len(job.plan.stages)} stages: {seconds:.2f} s, {peak:.0f} MiB, imported: {heavy}")


if __name__ == "__main__":
    main()
