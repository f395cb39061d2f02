"""A quadratic bowl over two axes, from stages of numbers"""

from dataclasses import dataclass

from cong.experiment import Cell
from cong.graph.stage import Context, Stage


@dataclass(frozen=True, kw_only=True)
class Part(Stage):
    """One number, and a mark for every time it was computed."""

    value: float
    source: Stage | None = None
    poison: float | None = None

    def run(self, ctx: Context) -> None:
        ctx.log(1, computed=1.0)
        if self.value == self.poison:
            raise ValueError(f"no such value: {self.value:g}")
        with (ctx.out / "marks.txt").open("a") as file:
            file.write("computed\n")
        ctx.summary(number=self.value)


def cells(scale, *, alpha: float = 0.0, beta: float = 0.0, gamma: int = 1, poison: float | None = None) -> list[Cell]:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha = {alpha:g} is not in [0, 1]")
    world = Part(value=100)
    chosen = Part(value=alpha, source=world)
    bowl = gamma * ((alpha - 0.3) ** 2 + (beta - 0.2) ** 2)
    end = Part(value=bowl if beta != poison else beta, source=chosen, poison=poison)
    return [Cell(stage=end, axes={"alpha": alpha, "beta": beta})]
