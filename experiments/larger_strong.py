"""Table 6: the methods with the largest strong model

The strong model is Qwen2.5-14B, or the largest of the scale's longest family. The paper does not name the weak model;
here it is table 1's.

    cong run experiments/larger_strong.py --set seeds=0,1,2
    cong plan experiments/larger_strong.py --scale paper --profile l40x4
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from cong.experiment import Cell, Results
from cong.paper import tables
from cong.paper.published import load_published
from cong.paper.setups import Setups
from cong.report import Block
from cong.report.statistics import values_of

PAPER = Path(__file__).with_name("paper.toml")


def cells(scale, *, setups: Setups = Setups()) -> list[Cell]:
    found = []
    for family in setups.families or (scale.longest,):
        # Of two families such as llama-qwen the second is the strong model's.
        strong = setups.strong or scale.sizes_of(family.split("-")[-1])[-1]
        for setup in dataclasses.replace(setups, families=(family,), strong=strong).of(scale):
            found += tables.judged_cells(setup.transition, rows=setup.rows(strong=strong))
    return found


def report(results: Results) -> Iterator[Block]:
    played = [result for result in results if tables.is_contest(result)]
    rewards = tables.by_method([result for result in results if result not in played], tables.WEAK_TO_STRONG)
    published = load_published(PAPER).get(("larger", str(results[0].axes["family"])))
    title = f"{results[0].axes['family']} to {values_of(results, 'strong')[0]}"
    yield tables.reward_table(title, rewards, published)
    if published:
        yield tables.disagreements(rewards, published)
    yield tables.contest_table(
        f"{title}: benchmarks of pairs",
        tables.by_method(played, tables.WEAK_TO_STRONG),
        tables=[result for result in played if tables.is_style_table(result)],
        published=published,
    )
