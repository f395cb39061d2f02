"""Tables 1 to 8 and figures 1 to 3 of the paper, and whether its seven observations hold

All experiments of the tables and figures in one graph, so that what several need is computed once. This page holds the
observations; every table and figure is on the page of its experiment, beside this one.

    cong run experiments/reproduce.py --scale tiny
    cong plan experiments/reproduce.py --scale paper --profile l40x4
    cong run experiments/reproduce.py --set seeds=0 --set only=methods,alpha_sweep
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

from cong.experiment import Cell, Results
from cong.experiment.parts import PART, Page, Part, page
from cong.graph.resources import Resources
from cong.paper.observations import Claim, Observation, observation_blocks
from cong.paper.published import Published, change_of, contradictions, load_published, load_quoted
from cong.paper.tables import is_contest
from cong.report import Block, Links
from cong.report.statistics import (
    Estimate,
    Terms,
    contrast,
    mean_difference,
    mean_terms,
    select,
    slope_terms,
    values_of,
)

HERE = Path(__file__).parent
FAMILIES = ("qwen", "llama")
OURS = ("ConG-S", "ConG")
SETTINGS = ("one model", "weak to strong")
MEASURE = "Observations 1 to 6 are decided by the reward of greedy responses to held-out prompts, 7 by accuracies."
MODERATE = (0.3, 0.4, 0.5)
ALPHAS = ("alpha=0,0.2,0.3,0.4,0.5,0.6,0.8,1",)
"""At tiny scale, where figure 3 would take the longest of all; the paper's grid has steps of 0.1."""
MOST_CHANGE = load_quoted(HERE / "paper.toml")["most downstream change"].value


def _settings(scale) -> dict[str, dict]:
    """Return what the parts are given beside the seeds; the world's own models are too slow for all of the paper's."""
    settings = {
        "methods": {},
        "larger_strong": {},
        "second_judge": {},
        "raters": {},
        "downstream": {} if scale.gpu else {"families": ("qwen",)},
        "training_cost": {},
        "domains": {"families": tuple(scale.sizes)} if scale.gpu else {},
        "reward_correlation": {},
        "radar": {},
        "alpha_rewards": {},
        "alpha_sweep": {"methods": ("Base", *OURS)},
        "model_gap": {"path": (), "sizes": False},
    }
    others = [family for family in scale.sizes if family != "qwen"] if scale.gpu else []
    return settings | {f"alpha_sweep-{name}": {**settings["alpha_sweep"], "family": name} for name in others}


def cells(scale, *, seeds: tuple[int, ...] = (0, 1, 2), only: tuple[str, ...] = ()) -> list[Cell]:
    settings = _settings(scale)
    if unknown := set(only) - set(settings):
        raise ValueError(f"only={','.join(only)}: unknown {', '.join(unknown)}; there are {', '.join(settings)}")
    grid = () if scale.gpu else ALPHAS
    chosen = [
        _part(name, {"seeds": seeds, **given}, grid=grid if name == "alpha_sweep" else ())
        for name, given in settings.items()
        if not only or name in only
    ]
    return [cell for part in chosen for cell in part.cells(scale)]


def _part(name: str, settings: dict | None = None, grid: tuple[str, ...] = ()) -> Part:
    stem, _, label = name.partition("-")
    return Part(path=HERE / f"{stem}.py", settings=settings or {}, label=label, grid=grid)


def remarks(cells: list[Cell], resources: Resources) -> Iterator[str]:
    """Yield what the experiment of table 5 says of its share of a plan."""
    costs = _part("training_cost")
    yield from costs.experiment.remarks(costs.own(cells), resources)


def report(results: Results) -> Iterator[Block]:
    yield from observation_blocks(list(observations(results)), measure=MEASURE, contradictions=other_orders(results))
    names = [str(name) for name in values_of(results, PART)]
    links = [(f"{name}.html", _part(name).experiment.title) for name in names]
    yield Links(title="Tables and figures", links=links, caption="Each with the paper's numbers where it prints any.")


def pages(results: Results) -> Iterator[Page]:
    """Return a page per part."""
    for name in values_of(results, PART):
        yield page(_part(name), results)


def observations(results: Results) -> Iterator[Observation]:
    """Return the paper's observations, with their claims held against the results."""
    shares = {name: _part(name).results(results) for name in values_of(results, PART)}
    table_one = [result for result in shares.get("methods", []) if not is_contest(result)]
    published = load_published(HERE / "paper.toml")
    yield _self_alignment(select(table_one, setting="one model"), published)
    yield _weak_to_strong(select(table_one, setting="weak to strong"), published)
    yield _smaller_gap(shares.get("model_gap", []))
    yield _larger_strong(shares.get("model_gap", []))
    swept = [result for name, share in shares.items() if name.startswith("alpha_sweep") for result in share]
    yield _moderate_alpha(swept)
    yield _beyond_half(swept)
    yield _unharmed(shares.get("downstream", []), published)


def other_orders(results: Results) -> list[tuple[str, str, str]]:
    """Return the pairs of methods in the other order than in tables 1, 3 and 6, by an interval without 0."""
    published = load_published(HERE / "paper.toml")
    blocks = [(key, "methods", {"setting": key[0], "family": key[1]}) for key in published if key[0] in SETTINGS]
    blocks.append((("larger", "qwen"), "larger_strong", {"family": "qwen"}))
    found = []
    for key, name, axes in blocks:
        share = select(_part(name).results(results), **axes)
        judged = [result for result in share if not is_contest(result)]
        methods = {method: select(judged, method=method) for method in values_of(judged, "method")}
        for pair in contradictions(methods, published[key], "reward"):
            told = f"{pair.better_here} above {pair.better_there} by {pair.measured}"
            found.append((published[key].source, told, f"{pair.published:.1f} points below"))
    return found


def _self_alignment(found: Results, published: dict) -> Observation:
    claims = []
    for method in ("ConG-S (self)", "ConG (self)"):
        for other in ("Base", "DPO", "ORPO", "SimPO"):
            # The paper's own average of ConG-S (self) is below that of SimPO.
            decisive = other == "Base" or method == "ConG (self)"
            claims.append(_above(found, method, other, published, "one model", decisive=decisive))
    return Observation(
        number=1,
        statement="In self-alignment, ConG improves over the reference and over preference optimization baselines",
        claims=tuple(claims),
        note="Means over both families. ConG-S against the baselines does not decide: by the paper's own table 1 it is "
        "below SimPO on average.",
    )


def _weak_to_strong(found: Results, published: dict) -> Observation:
    setting = "weak to strong"
    claims = [_above(found, method, "Base", published, setting) for method in OURS]
    for other in ("Weak SFT (pre)", "Weak SFT (post)", "WeakTeacher", "AuxConf", "WSPO"):
        gain = _mean_gap(found, other, "Base")
        printed = _printed(published, setting, other, "Base")
        claims.append(
            Claim(text=f"{other} - Base: degrades", estimate=gain, below=0.0, published=printed, decisive=False)
        )
    for method in OURS:
        for other in ("Weak SFT (post)", "WeakTeacher", "WSPO"):
            claims.append(_above(found, method, other, published, setting, decisive=False))
    return Observation(
        number=2,
        statement="From weak to strong, ConG-S and ConG improve substantially over the base models",
        claims=tuple(claims),
        note="Means over both families. That the other baselines degrade is said beside it; in the paper's own table 1 "
        "Weak SFT (post) and WeakTeacher do not.",
    )


def _smaller_gap(found: Results) -> Observation:
    varied = select(found, panel="weak size")
    sizes = values_of(varied, "weak")
    claims = []
    for method in OURS:
        for worse, better in _ends_and_steps(sizes):
            terms = [
                (1.0, select(varied, method=method, weak=better)),
                (-1.0, select(varied, method=method, weak=worse)),
            ]
            text = f"{method}: from {better} rather than from {worse}, to {varied[0].axes['strong']}"
            decisive = (worse, better) == (sizes[0], sizes[-1])
            claims.append(Claim(text=text, estimate=_contrast(terms), above=0.0, decisive=decisive))
    return Observation(
        number=3,
        statement="Smaller gaps between the models lead to larger improvements",
        claims=tuple(claims),
        note="The improvement of one strong model over itself, with weak models of several sizes.",
    )


def _larger_strong(found: Results) -> Observation:
    varied, other = select(found, panel="strong size"), select(found, panel="weak size")
    sizes = values_of(varied, "strong")
    claims = []
    for method in OURS:
        for worse, better in _ends_and_steps(sizes):
            terms = _gain(varied, method, 1.0, strong=better) + _gain(varied, method, -1.0, strong=worse)
            text = f"{method}: gain of {better} rather than of {worse}, from {varied[0].axes['weak']}"
            decisive = (worse, better) == (sizes[0], sizes[-1])
            claims.append(Claim(text=text, estimate=_contrast(terms), above=0.0, decisive=decisive))
        terms = _gain(other, method, 1.0, weak="3B") + _gain(varied, method, -1.0, strong="3B")
        claims.append(Claim(text=f"{method}: gain of 3B to 7B over 1.5B to 3B", estimate=_contrast(terms), above=0.0))
    return Observation(
        number=4,
        statement="Larger strong models gain more",
        claims=tuple(claims),
        note="The example 3B to 7B against 1.5B to 3B is the paper's; it changes both models at once.",
    )


def _moderate_alpha(found: Results) -> Observation:
    claims = []
    for family, method in _curves(found):
        curve = select(found, family=family, method=method)
        alphas = sorted(values_of(curve, "alpha"))
        for name, others in (
            ("smaller", [alpha for alpha in alphas if alpha < MODERATE[0]]),
            ("larger", [alpha for alpha in alphas if alpha > MODERATE[-1]]),
        ):
            terms = mean_terms(curve, "alpha", MODERATE, 1.0) + mean_terms(curve, "alpha", others, -1.0)
            text = f"{family}, {method}: mean of alpha 0.3 to 0.5 over the mean of {name} ones"
            claims.append(Claim(text=text, estimate=_contrast(terms), above=0.0))
    return Observation(number=5, statement="Moderate values of alpha, 0.3 to 0.5, are the best", claims=tuple(claims))


def _beyond_half(found: Results) -> Observation:
    claims = []
    for family, method in _curves(found):
        curve = select(found, family=family, method=method)
        beyond = [alpha for alpha in sorted(values_of(curve, "alpha")) if alpha >= MODERATE[-1]]
        text = f"{family}, {method}: slope per 0.1 of alpha, from 0.5 to 1"
        claims.append(Claim(text=text, estimate=_contrast(slope_terms(curve, "alpha", beyond, per=0.1)), below=0.0))
    return Observation(number=6, statement="Beyond 0.5 the improvement diminishes with alpha", claims=tuple(claims))


def _unharmed(found: Results, published: dict[tuple[str, str], Published]) -> Observation:
    claims = []
    for family in values_of(found, "family"):
        base = select(found, family=family, method="Base")
        names = [task.name for task in getattr(base[0].cell.stage, "tasks", ())]
        for method in values_of(found, "method")[1:]:
            change = mean_difference(select(found, family=family, method=method), base, names).times(100)
            printed = _printed_change(published, family, method)
            bounds = {"above": -MOST_CHANGE} if method in OURS else {"below": -MOST_CHANGE}
            said = "degrades by less than a point" if method in OURS else "degrades by more than a point"
            text = f"{family}, {method}, points: {said}"
            claims.append(Claim(text=text, estimate=change, published=printed, decisive=method in OURS, **bounds))
    return Observation(
        number=7,
        statement="ConG and ConG-S degrade downstream tasks by less than one point on average",
        claims=tuple(claims),
        note="Average change over the tasks, in points of accuracy; at tiny scale they are the synthetic world's own.",
    )


def _printed_change(published: dict[tuple[str, str], Published], family: str, method: str) -> str:
    """Return the paper's average change of the tasks, nothing for a family that it does not have."""
    table = published.get(("downstream", family))
    changes = [change_of(cell) for cell in table.rows[method]] if table else []
    return f"{sum(changes) / len(changes):+.2f} points" if changes else ""


def _above(found: Results, method: str, other: str, published: dict, setting: str, *, decisive: bool = True) -> Claim:
    printed = _printed(published, setting, method, other)
    gap = _mean_gap(found, method, other)
    return Claim(text=f"{method} - {other}", estimate=gap, above=0.0, published=printed, decisive=decisive)


def _mean_gap(found: Results, method: str, other: str) -> Estimate | None:
    """Return the difference of two methods, averaged over the families alone before anything else."""
    families = [family for family in values_of(found, "family") if "-" not in str(family)]
    signs = ((method, 1 / len(families)), (other, -1 / len(families))) if families else ()
    return _contrast([(s, select(found, method=name, family=one)) for one in families for name, s in signs])


def _printed(published: dict[tuple[str, str], Published], setting: str, method: str, other: str) -> str:
    averages = [published[setting, family].averages for family in FAMILIES]
    gaps = [one[method] - one[other] for one in averages]
    return f"{sum(gaps) / len(gaps):+.1f} points"


def _contrast(terms: Terms) -> Estimate | None:
    """Return a contrast of rewards, None where a side of it was not measured."""
    return contrast(terms, "reward") if terms and all(results for _, results in terms) else None


def _gain(found: Results, method: str, sign: float, **axes: str) -> Terms:
    return [(sign, select(found, method=method, **axes)), (-sign, select(found, method="Base", **axes))]


def _ends_and_steps(sizes: list[str]) -> list[tuple[str, str]]:
    """Return the first and the last size, then the neighbours."""
    steps = list(itertools.pairwise(sizes))
    return [(sizes[0], sizes[-1]), *steps] if len(sizes) > 2 else steps


def _curves(found: Results) -> list[tuple[str, str]]:
    return [(family, method) for family in values_of(found, "family") for method in reversed(OURS)]
