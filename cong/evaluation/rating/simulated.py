"""`SimulatedRaters`: programs that rate a sample of the synthetic world, so that the whole path runs without people.

    sample = RatingSample(methods=...)
    Ratings(sample=sample, files=(SimulatedRaters(sample=sample, world=world, raters=3, noise=0.5),))

They see what people would see, the table with prompt, A and B, and write the CSV that people would send back. They are
no people, and nothing that rests on them says anything about people.
"""

import csv
from dataclasses import dataclass

from cong.evaluation.judging.local import NoisyComparison
from cong.evaluation.judging.pairs import Pair
from cong.evaluation.rating.sample import RATINGS, TABLE, RatingSample
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work
from cong.synthetic.world import World

RATED = "ratings.csv"


@dataclass(frozen=True, kw_only=True)
class SimulatedRaters(Stage):
    """Ratings by `raters` programs, each with errors of its own: a reward is seen with a normal error of `noise`."""

    sample: RatingSample
    world: World
    raters: int = 3
    noise: float = 0.5

    def label(self) -> str:
        return f"{self.raters}_raters,noise={self.noise:g}"

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def run(self, ctx: Context) -> None:
        with (ctx.path(self.sample) / TABLE).open(newline="") as file:
            items = list(csv.DictReader(file))
        with (ctx.out / RATED).open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("sample", "item", "rater", "rating"))
            for seed in range(self.raters):
                judge = NoisyComparison(world=self.world, noise=self.noise, seed=seed)
                writer.writerows(
                    (item["sample"], item["item"], f"simulated {seed + 1}", _rating(judge, item)) for item in items
                )
        ctx.summary(raters=self.raters, items=len(items))


def _rating(judge: NoisyComparison, item: dict[str, str]) -> str:
    verdict = judge.verdict(Pair(instruction=item["prompt"], output=item["A"], baseline=item["B"]))
    assert verdict.preference is not None
    return {2.0: RATINGS[0], 1.5: RATINGS[1], 1.0: RATINGS[2]}[verdict.preference]
