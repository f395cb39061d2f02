"""Numbers that are written down

An experiment for tests: a stage waits as long as there is a file `hold` beside the store, and says where it runs.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import cong
from cong.experiment import Cell
from cong.graph.demand import Demand
from cong.graph.stage import Stage
from cong.report import Table


@dataclass(frozen=True, kw_only=True)
class Number(Stage):
    value: float
    cpus: float = 1.0

    def label(self):
        return f"value={self.value:g}"

    def demand(self, resources):
        return Demand(cpus=self.cpus)

    def run(self, ctx):
        beside = ctx.out.parents[2]
        (beside / f"began-{self.value:g}-{os.getpid()}").touch()
        for step in range(1200):
            ctx.progress(done=step, total=1200, unit="steps")
            if not (beside / "hold").exists():
                break
            time.sleep(0.1)
        if self.value < 0:
            raise RuntimeError("a number is negative\nand that is explained here")
        ctx.summary(number=self.value, cong=str(Path(cong.__file__)), token=os.environ.get("HF_TOKEN", "none"))
        (ctx.out / "number.txt").write_text(str(self.value))


def cells(scale, *, values: tuple[float, ...] = (1.0, 2.0), cpus: float = 1.0):
    return [Cell(stage=Number(value=value, cpus=cpus), axes={"value": value}) for value in values]


def report(results):
    rows = [(f"{result.axes['value']:g}", f"{result.values['number']:g}") for result in results]
    yield Table(title="Numbers", columns=("value", "number"), rows=rows)
