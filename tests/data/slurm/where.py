"""Which nodes run the stages?"""

import time
from dataclasses import dataclass

from cong.experiment import Cell
from cong.graph.stage import Stage


@dataclass(frozen=True, kw_only=True)
class Where(Stage):
    number: int

    def run(self, ctx):
        import ray

        # Long enough that the other stage is not given the same node.
        time.sleep(1)
        ctx.summary(nodes=len(ray.nodes()), node=ray.get_runtime_context().get_node_id())


def cells(scale):
    return [Cell(stage=Where(number=number), axes={"number": number}) for number in range(2)]
