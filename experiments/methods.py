"""Tables 1 and 3: every method of the paper, in families and across them, beside the paper's order

Weak-to-strong rows change the strong model and are compared with it; the rows for one model change the weak model.
A family such as `llama-qwen` is a weak Llama and a strong Qwen. The search ranges of ORPO and SimPO are axes; with
several values the best one stands for the method, as in the paper.

    cong run experiments/methods.py --set seeds=0,1,2
    cong run experiments/methods.py --set families=qwen --set orpo_weight=0.1,0.5,1,2
    cong run experiments/methods.py --set families=qwen --set simpo_beta=2,4,6,8 --set simpo_gamma=0.3,0.5,1,1.2,1.4,1.6
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

from cong import methods
from cong.experiment import Cell, Results
from cong.report import Block, Table, Text
from cong.report.published import Published, contradictions, load_published, order_correlation, ranks
from cong.report.statistics import best_row, estimate, select, values_of

FAMILIES = ("qwen", "llama", "llama-qwen", "qwen-llama")
SETTINGS = {
    "weak to strong": ("Base", "Weak SFT (pre)", "Weak SFT (post)", "WeakTeacher", "AuxConf", "WSPO", "ConG-S", "ConG"),
    "one model": ("Base", "DPO", "ORPO", "SimPO", "ConG-S (self)", "ConG (self)"),
}
PAPER = Path(__file__).with_name("paper.toml")


def cells(
    scale,
    *,
    families: tuple[str, ...] = FAMILIES,
    seeds: tuple[int, ...] = (0,),
    alpha: float | None = None,
    beta: float = 0.5,
    weak: str | None = None,
    strong: str | None = None,
    orpo_weight: tuple[float, ...] | None = None,
    simpo_beta: tuple[float, ...] | None = None,
    simpo_gamma: tuple[float, ...] | None = None,
) -> list[Cell]:
    searched = {"weight": orpo_weight or (None,), "beta": simpo_beta or (None,), "gamma": simpo_gamma or (None,)}
    found = []
    for seed, family in itertools.product(seeds, families):
        t = _transition(family, weak=weak, strong=strong, scale=scale, seed=seed)
        contrast = scale.alpha[family.partition("-")[0]] if alpha is None else alpha
        axes = {"family": family, "seed": seed, "alpha": contrast, "beta": beta}
        for method, model in _weak_to_strong(t, contrast, beta).items():
            named = {"method": method, "setting": "weak to strong", **axes}
            found.append(Cell(stage=methods.evaluate(t, model), axes=named))
        if t.same_tokenizer:
            found += _one_model(t.self_aligned, contrast, beta, searched, {"setting": "one model", **axes})
    return found


def _transition(family: str, *, weak: str | None, strong: str | None, scale, seed: int) -> methods.Transition:
    ours, _, theirs = family.partition("-")
    unknown = {ours, theirs or ours} - set(scale.sizes)
    if unknown:
        raise ValueError(f"families={family}: unknown {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    return methods.transition(
        ours,
        weak=weak or scale.sizes[ours][0],
        strong=strong or scale.sizes[theirs or ours][1],
        strong_family=theirs or None,
        scale=scale,
        seed=seed,
    )


def _weak_to_strong(t: methods.Transition, alpha: float, beta: float) -> dict:
    return {
        "Base": methods.base(t),
        "Weak SFT (pre)": methods.weak_sft_pre(t),
        "Weak SFT (post)": methods.weak_sft_post(t),
        "WeakTeacher": methods.weak_teacher(t),
        "AuxConf": methods.aux_conf(t),
        "WSPO": methods.wspo(t),
        "ConG-S": methods.cong_s(t, alpha=alpha),
        "ConG": methods.cong(t, alpha=alpha, beta=beta),
    }


def _one_model(t: methods.Transition, alpha: float, beta: float, searched: dict, axes: dict) -> list[Cell]:
    models: list[tuple[str, dict, object]] = [("Base", {}, methods.base(t)), ("DPO", {}, methods.dpo(t))]
    for weight in searched["weight"]:
        models.append(("ORPO", {"orpo_weight": weight}, methods.orpo(t, weight=weight)))
    for b, gamma in itertools.product(searched["beta"], searched["gamma"]):
        models.append(("SimPO", {"simpo_beta": b, "simpo_gamma": gamma}, methods.simpo(t, beta=b, gamma=gamma)))
    models.append(("ConG-S (self)", {}, methods.cong_s(t, alpha=alpha)))
    models.append(("ConG (self)", {}, methods.cong(t, alpha=alpha, beta=beta)))
    return [
        Cell(
            stage=methods.evaluate(t, model),  # pyright: ignore[reportArgumentType]
            axes={"method": method, **{key: v for key, v in setting.items() if v is not None}, **axes},
        )
        for method, setting, model in models
    ]


def report(results: Results) -> Iterator[Block]:
    best = {
        (setting, family): _by_method(select(results, setting=setting, family=family), names)
        for setting, names in SETTINGS.items()
        for family in values_of(select(results, setting=setting), "family")
    }
    yield _overview(best)
    published = load_published(PAPER)
    for key, found in best.items():
        yield _beside_the_paper(key, found, published.get(key))
        if key in published:
            yield _disagreements(found, published[key])
    if any("orpo_weight" in result.axes or "simpo_beta" in result.axes for result in results):
        yield _searched(results)


def _by_method(results: Results, names: tuple[str, ...]) -> dict[str, Results]:
    """Return the results of each method, of its best setting where several were searched."""
    return {name: max(_variants(select(results, method=name)), key=_mean) for name in names}


def _variants(results: Results) -> list[Results]:
    groups: dict[tuple, Results] = {}
    for result in results:
        groups.setdefault(tuple(value for key, value in result.axes.items() if key != "seed"), []).append(result)
    return list(groups.values())


def _mean(results: Results) -> float:
    return estimate(results, "reward").mean


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
        caption=_interval(next(iter(best.values()))["Base"]) + " Across families there is no row for one model.",
    )


def _interval(results: Results) -> str:
    seeds = len(values_of(results, "seed"))
    over = "Student's t over seeds" if seeds > 1 else "bootstrap over prompts; the spread between seeds is not in it"
    return f"Mean and 95 % interval ({over}); {seeds} seed{'s' if seeds > 1 else ''}."


def _beside_the_paper(key: tuple[str, str], found: dict[str, Results], published: Published | None) -> Table:
    columns = [
        [estimate(results, measure) for results in found.values()] for measure in ("reward", "win_rate", "tokens")
    ]
    theirs = published.averages if published else {}
    here = ranks({name: _mean(results) for name, results in found.items() if name in theirs})
    there = ranks({name: score for name, score in theirs.items() if name in found})
    rows = [
        (
            name,
            *(str(column[index]) for column in columns),
            f"{theirs[name]:.1f}" if name in theirs else "",
            f"{here[name]} / {there[name]}" if name in theirs else "",
        )
        for index, name in enumerate(found)
    ]
    source = f" The paper's average: {published.source}." if published else ""
    return Table(
        title=f"{key[1].replace('-', ' to ')}, {key[0]}",
        columns=(
            "method",
            "reward, greedy",
            "wins against base",
            "tokens",
            "paper's average",
            "place here / in the paper",
        ),
        rows=rows,
        best=(None, best_row(columns[0]), best_row(columns[1]), None, None, None),
        caption=_interval(found["Base"]) + source,
    )


def _disagreements(found: dict[str, Results], published: Published) -> Text:
    rho = order_correlation({name: _mean(results) for name, results in found.items()}, published)
    pairs = [
        f"{pair.better_here} above {pair.better_there} by {pair.measured} (the paper has it {pair.published:.1f} below)"
        for pair in contradictions(found, published, "reward")
    ]
    listed = "; ".join(pairs) if pairs else "none"
    return Text(
        text=f"Spearman correlation of the order with the paper's: {rho:.2f}. Pairs of methods in the other order than "
        f"in the paper, by a difference paired by prompt whose 95 % interval excludes 0: {listed}."
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
