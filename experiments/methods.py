"""Tables 1 and 3: every method of the paper, in families and across them, beside the paper's order

Weak-to-strong rows change the strong model and are compared with it; the rows for one model change the weak model.
A family such as `llama-qwen` is a weak Llama and a strong Qwen. The search ranges of ORPO and SimPO are axes; with
several values the best one stands for the method, as in the paper. The benchmarks of pairs are the scale's: at tiny
scale the exact reward decides against the responses of Base, at paper scale AlpacaEval 2 and Arena-Hard are played.
Which share of the gap to a ceiling a method recovers stands beside its reward.

    cong run experiments/methods.py --set seeds=0,1,2
    cong run experiments/methods.py --set families=qwen --set orpo_weight=0.1,0.5,1,2
    cong run experiments/methods.py --set families=qwen --set simpo_beta=2,4,6,8 --set simpo_gamma=0.3,0.5,1,1.2,1.4,1.6
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

from cong import methods
from cong.experiment import Cell, Results
from cong.methods import CEILING, WEAK, WEAK_ALIGNED
from cong.paper import tables
from cong.paper.published import load_published
from cong.paper.setups import Row, Setups, across
from cong.report import Block, Table
from cong.report.statistics import estimate, select, values_of

SETTINGS = {
    "weak to strong": tables.WEAK_TO_STRONG,
    "one model": ("Base", "DPO", "ORPO", "SimPO", "ConG-S (self)", "ConG (self)"),
}
ALONE = (
    "Recovery: from Base to DPO, the alignment with the true reward; bootstrap over prompts and seeds. One model "
    "is its own weak model and, once aligned, its own ceiling: there is no gap for PGR."
)
PAPER = Path(__file__).with_name("paper.toml")


def cells(
    scale,
    *,
    setups: Setups = Setups(),
    orpo_weight: tuple[float, ...] | None = None,
    simpo_beta: tuple[float, ...] | None = None,
    simpo_gamma: tuple[float, ...] | None = None,
) -> list[Cell]:
    searched = {"weight": orpo_weight or (None,), "beta": simpo_beta or (None,), "gamma": simpo_gamma or (None,)}
    families = setups.families or (*scale.sizes, *across(scale))
    found = []
    for setup in dataclasses.replace(setups, families=families).of(scale):
        t = setup.transition
        found += tables.judged_cells(t, rows=setup.rows(setting="weak to strong"))
        found += tables.gap_cells(t, axes={"setting": "weak to strong", **setup.axes}, known=setup.models)
        if t.same_tokenizer:
            alone = _one_model(t.self_aligned, setup.alpha, setup.beta, searched)
            rows = [({**own, "setting": "one model", **setup.axes}, model) for own, model in alone]
            found += tables.judged_cells(t.self_aligned, rows=rows)
    return found


def _one_model(t: methods.Transition, alpha: float, beta: float, searched: dict) -> list[Row]:
    rows: list[Row] = [({"method": "Base"}, methods.base(t)), ({"method": "DPO"}, methods.dpo(t))]
    for weight in searched["weight"]:
        rows.append((_given("ORPO", orpo_weight=weight), methods.orpo(t, weight=weight)))
    for b, gamma in itertools.product(searched["beta"], searched["gamma"]):
        rows.append((_given("SimPO", simpo_beta=b, simpo_gamma=gamma), methods.simpo(t, beta=b, gamma=gamma)))
    rows.append(({"method": "ConG-S (self)"}, methods.cong_s(t, alpha=alpha)))
    rows.append(({"method": "ConG (self)"}, methods.cong(t, alpha=alpha, beta=beta)))
    return rows


def _given(method: str, **setting: float | None) -> dict:
    return {"method": method, **{name: value for name, value in setting.items() if value is not None}}


def report(results: Results) -> Iterator[Block]:
    contests = [result for result in results if tables.is_contest(result)]
    results = [result for result in results if not tables.is_contest(result)]
    best = {
        (setting, family): _by_method(select(results, setting=setting, family=family), names)
        for setting, names in SETTINGS.items()
        for family in values_of(select(results, setting=setting), "family")
    }
    yield _overview(best)
    published = load_published(PAPER)
    for key, found in best.items():
        title = f"{key[1].replace('-', ' to ')}, {key[0]}"
        ends = tables.by_method(select(results, setting=key[0], family=key[1]), (WEAK, WEAK_ALIGNED, CEILING))
        if ends:
            yield tables.reward_table(title, found, published.get(key), ends=ends)
        else:
            alone = {WEAK: found["Base"], WEAK_ALIGNED: found["DPO"], CEILING: found["DPO"]}
            yield tables.reward_table(title, found, published.get(key), ends=alone, shares_note=ALONE)
        if key in published:
            yield tables.disagreements(found, published[key])
        played = select(contests, setting=key[0], family=key[1])
        yield tables.contest_table(
            f"{title}: benchmarks of pairs",
            {name: _alike(played, one) for name, one in found.items()},
            tables=[result for result in played if tables.is_style_table(result)],
            published=published.get(key),
        )
    if any("orpo_weight" in result.axes or "simpo_beta" in result.axes for result in results):
        yield _searched(results)


def _by_method(results: Results, names: tuple[str, ...]) -> dict[str, Results]:
    """Return the results of each method, of its best setting where several were searched."""
    return {name: max(_variants(select(results, method=name)), key=tables.mean_reward) for name in names}


def _variants(results: Results) -> list[Results]:
    groups: dict[tuple, Results] = {}
    for result in results:
        groups.setdefault(tuple(value for key, value in result.axes.items() if key != "seed"), []).append(result)
    return list(groups.values())


def _alike(contests: Results, chosen: Results) -> Results:
    """Return the comparisons of the very models whose rewards were chosen."""
    axes = {name: value for name, value in chosen[0].axes.items() if name != "seed"}
    return select(contests, **axes)


def _overview(best: dict[tuple[str, str], dict[str, Results]]) -> Table:
    families = list(dict.fromkeys(family for _, family in best))
    rows = [
        (
            name if setting == "weak to strong" else f"{name}, one model" if name == "Base" else name,
            *(str(estimate(best[setting, f][name], "reward")) if (setting, f) in best else "" for f in families),
        )
        for setting, names in SETTINGS.items()
        for name in names
    ]
    return Table(
        title="Reward on held-out prompts, greedy",
        columns=("method", *(family.replace("-", " to ") for family in families)),
        rows=rows,
        caption=tables.interval_note(next(iter(best.values()))["Base"])
        + " Across families there is no row for one model.",
    )


def _searched(results: Results) -> Table:
    names = ("orpo_weight", "simpo_beta", "simpo_gamma")
    groups = [group for group in _variants(results) if any(name in group[0].axes for name in names)]
    rows = [
        (
            str(group[0].axes["method"]),
            str(group[0].axes["family"]),
            ", ".join(f"{name} {group[0].axes[name]:g}" for name in names if name in group[0].axes),
            str(estimate(group, "reward")),
        )
        for group in groups
    ]
    return Table(
        title="Search ranges",
        columns=("method", "family", "setting", "reward, greedy"),
        rows=rows,
        caption="The best setting of each method is its row above: chosen on the prompts that it is reported on, which "
        "favours these two.",
    )
