"""A Ray cluster of two nodes, each with a cache of its own for a store at a URL: a program for tests.

It runs stages whose rows are computed by two actors, and stages that read those, and prints one line of JSON: per stage
the nodes on which its actors were, and how many rows the reader found.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from cong.data import Row, read_rows, write_rows
from cong.data.map_rows import map_rows
from cong.graph.demand import Demand
from cong.graph.plan import make_plan
from cong.graph.remote import ObjectStore
from cong.graph.resources import Resources
from cong.graph.runner import Runner
from cong.graph.stage import Context, Stage

ROWS = "rows.parquet"


class Place:
    """Says of each row on which node it was computed."""

    def process(self, rows: list[Row]) -> Iterator[Row]:
        for row in rows:
            yield {**row, "num_tokens": 1, "error": None, "node": ray.get_runtime_context().get_node_id()}


@dataclass(frozen=True, kw_only=True)
class Spread(Stage):
    number: int

    def demand(self, resources: Resources) -> Demand:
        return resources.generation_demand()

    def run(self, ctx: Context) -> None:
        rows = [{"row_id": f"{number}"} for number in range(40)]
        found = map_rows(ctx, Place, rows, max_error_share=0.0)
        write_rows(ctx.out / ROWS, found)
        ctx.summary(nodes=sorted({row["node"] for row in found}))


@dataclass(frozen=True, kw_only=True)
class Reader(Stage):
    source: Spread

    def run(self, ctx: Context) -> None:
        ctx.summary(rows=len(read_rows(ctx.path(self.source) / ROWS)), cache=str(ctx.out.parents[1]))


def main() -> None:
    directory = Path(os.environ["RAY_TMPDIR"])
    small: dict[str, Any] = {"object_store_memory": 80 << 20, "dashboard_agent_listen_port": 0}
    cluster = Cluster(
        initialize_head=True, head_node_args={**small, "num_cpus": 0, "include_dashboard": False}, shutdown_at_exit=True
    )
    for number in ("1", "2"):
        caches = {"CONG_CACHE": str(directory / f"cache-{number}")}
        cluster.add_node(**small, num_cpus=2, temp_dir=str(directory / number), env_vars=caches)
    store = ObjectStore(sys.argv[1])
    store.prepare()
    resources = Resources(name="two").changed(address=cluster.address, actors=2, slots=4, one_node=True)
    stages = [Spread(number=number) for number in range(3)]
    readers = [Reader(source=stage) for stage in stages]
    plan = make_plan({str(number): stage for number, stage in enumerate(readers)}, store)
    Runner(store=store, resources=resources).run(plan)
    nodes = [store.record(stage)["results"]["nodes"] for stage in stages]
    read = [store.record(stage)["results"] for stage in readers]
    print(json.dumps({"nodes": nodes, "rows": [one["rows"] for one in read], "caches": [one["cache"] for one in read]}))


if __name__ == "__main__":
    main()
