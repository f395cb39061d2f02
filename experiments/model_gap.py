"""Figure 3 (a, b): the gap between weak and strong model, and the staged path against the direct one

The weak size varies for one strong model; the strong size varies for one weak model; and on the staged path every
aligned strong model, with what it was before, is the next weak pair. ConG moves a model much further than DPO of a
weak model does, so the staged path is walked twice: with one alpha, and with an alpha of their own for later steps.

    cong plan experiments/model_gap.py                      what the direct and the staged path share
    cong run experiments/model_gap.py --set seeds=0,1,2
    cong run experiments/model_gap.py --scale paper --profile l40x4
"""

import itertools
from collections.abc import Iterator

from cong import methods
from cong.experiment import Cell, Results
from cong.graph.stage import Stage
from cong.methods import CEILING, WEAK, WEAK_ALIGNED
from cong.paper import tables
from cong.report import Block, Figure, Table, Text, ranked_table
from cong.report.recovery import PGR, RECOVERY, SHARES_NOTE, shares
from cong.report.statistics import difference, estimate, over_seeds, select, values_of

METHODS = ("Base", "ConG-S", "ConG")
STAGED = ("staged", "staged, own alpha")
COLOURS = {
    "Base": "#8a8a8a",
    "ConG-S": "#1f5fbf",
    "ConG": "#c2571a",
    "staged": "#2a8c4a",
    "staged, own alpha": "#8b4fb3",
}


def cells(
    scale,
    *,
    seeds: tuple[int, ...] = (0,),
    family: str | None = None,
    weaks: tuple[str, ...] | None = None,
    to_strong: str | None = None,
    strongs: tuple[str, ...] | None = None,
    from_weak: str | None = None,
    path: tuple[str, ...] | None = None,
    alpha: float | None = None,
    onward_alpha: float = 1.0,
    sizes: bool = True,
    beta: float = 0.5,
) -> list[Cell]:
    family = family or scale.longest
    ladder, alpha = scale.sizes_of(family), scale.alpha[family] if alpha is None else alpha
    weaks, strongs = ladder[:-1] if weaks is None else weaks, ladder[1:] if strongs is None else strongs
    to_strong, from_weak = to_strong or scale.sizes[family][1], from_weak or ladder[0]
    path = ladder if path is None else path
    found = []
    for seed in seeds:

        def between(weak: str, strong: str, seed: int = seed) -> methods.Transition:
            return methods.transition(family, weak=weak, strong=strong, scale=scale, seed=seed)

        common = {"family": family, "seed": seed, "beta": beta, "alpha": alpha}
        for size in dict.fromkeys((*weaks, to_strong, *strongs, from_weak, *path)) if sizes else ():
            found += _size(between(from_weak, size), {"panel": "size", "strong": size, **common})
        for weak in weaks:
            found += _row(between(weak, to_strong), {"panel": "weak size", "weak": weak, "strong": to_strong, **common})
        for strong in strongs:
            axes = {"panel": "strong size", "weak": from_weak, "strong": strong, **common}
            found += _row(between(from_weak, strong), axes)
        for panel, onward in (("staged", alpha), ("staged, own alpha", onward_alpha)) if path else ():
            alphas = (alpha, *(onward for _ in path[2:]))
            steps = methods.staged(family, sizes=path, scale=scale, alphas=alphas, beta=beta, seed=seed)
            for step, (weak, strong), own in zip(steps, itertools.pairwise(path), alphas, strict=True):
                found += _row(step, {"panel": panel, "weak": weak, "strong": strong, **common, "alpha": own})
        if path:
            ends = {"panel": "direct", "weak": path[0], "strong": path[-1]}
            found += _row(between(path[0], path[-1]), {**ends, **common})
    return found


def _size(t: methods.Transition, axes: dict) -> list[Cell]:
    """What a size can do before any alignment: loss on the corpus's held-out texts, and reward."""
    made = [
        Cell(stage=methods.evaluate(t, t.strong), axes={"decoding": "greedy", **axes}),
        Cell(stage=methods.evaluate(t, t.strong, sampled=True), axes={"decoding": "sampled", **axes}),
    ]
    # A checkpoint of the hub has no pretraining to ask.
    pretraining = [Cell(stage=t.strong, axes={"of": "pretraining", **axes})] if isinstance(t.strong, Stage) else []
    return made + pretraining


def _row(t: methods.Transition, axes: dict) -> list[Cell]:
    models = {
        "Base": methods.base(t),
        "ConG-S": methods.cong_s(t, alpha=axes["alpha"]),
        "ConG": methods.cong(t, alpha=axes["alpha"], beta=axes["beta"]),
    }
    made = [Cell(stage=methods.evaluate(t, model), axes={"method": name, **axes}) for name, model in models.items()]
    made += tables.gap_cells(t, axes=axes, known=(*models, WEAK))
    return [*made, Cell(stage=methods.alignment_distance(t), axes={"of": "weak pair", **axes})]


def report(results: Results) -> Iterator[Block]:
    if select(results, panel="size"):
        yield _sizes(results)
    yield _figure(results)
    for panel, title in (
        ("weak size", "Weak size varies"),
        ("strong size", "Strong size varies"),
        ("staged", "Staged path: every step's weak pair is the step before"),
        ("staged, own alpha", "Staged path, later steps with an alpha of their own"),
        ("direct", "Direct transition over the whole path"),
    ):
        if found := select(results, panel=panel):
            yield _transitions(found, title)
            yield _shares(found, title)
    if select(results, panel="direct"):
        yield _staged_against_direct(results)


def _sizes(results: Results) -> Table:
    found = select(results, panel="size")
    rows = []
    for size in values_of(found, "strong"):
        one = select(found, strong=size)
        pretraining = select(one, of="pretraining")
        losses = [result.values["heldout_loss"] for result in pretraining]
        parameters = f"{pretraining[0].values['parameters'] / 1e6:.2f}" if pretraining else ""
        rewards = (str(estimate(select(one, decoding=decoding), "reward")) for decoding in ("greedy", "sampled"))
        rows.append((size, parameters, _loss(losses), *rewards))
    return Table(
        title="The sizes before alignment",
        columns=("size", "million parameters", "held-out loss per token", "reward, greedy", "reward, sampled"),
        rows=rows,
        caption=_interval(results) + " The loss is on texts about held-out prompts.",
    )


def _loss(losses: list[float]) -> str:
    if not losses:
        return ""
    if len(losses) == 1:
        return f"{losses[0]:.4f}"
    found = over_seeds(losses)
    return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"


def _interval(results: Results) -> str:
    seeds = len(values_of(results, "seed"))
    over = "Student's t over seeds" if seeds > 1 else "bootstrap over prompts; the spread between seeds is not in it"
    return f"Mean and 95 % interval ({over}); {seeds} seed{'s' if seeds > 1 else ''}."


def _transitions(found: Results, title: str) -> Table:
    rows = []
    for weak, strong in dict.fromkeys((result.axes["weak"], result.axes["strong"]) for result in found):
        one = select(found, weak=weak, strong=strong)
        models = {name: select(one, method=name) for name in METHODS}
        rows.append(
            (
                f"{weak} to {strong}",
                f"{one[0].axes['alpha']:g}",
                *(str(estimate(models[name], "reward")) for name in METHODS),
                *(str(difference(models[name], models["Base"], "reward")) for name in METHODS[1:]),
                str(estimate(select(one, of="weak pair"), "reward")),
            )
        )
    return Table(
        title=title,
        columns=("transition", "alpha", *METHODS, "ConG-S - Base", "ConG - Base", "distance of the weak pair"),
        rows=rows,
        caption=_interval(found) + " Reward of greedy responses; differences paired by prompt. Distance: how far "
        "alignment moved the weak model, KL(pi_r || pi_ref) in nats per response on held-out prompts; where it is "
        "large, contrastive decoding leaves what either model knows.",
    )


def _shares(found: Results, title: str) -> Table:
    rows = {}
    for weak, strong in dict.fromkeys((result.axes["weak"], result.axes["strong"]) for result in found):
        rewards = tables.by_method(select(found, weak=weak, strong=strong), (*METHODS, WEAK_ALIGNED, CEILING))
        ends = [str(estimate(rewards[name], "reward")) for name in (WEAK_ALIGNED, CEILING)]
        rows[f"{weak} to {strong}"] = [*ends, *(share for name in METHODS[1:] for share in shares(name, rewards))]
    return ranked_table(
        title=f"{title}: share of the gap that is recovered",
        columns=dict.fromkeys(
            (WEAK_ALIGNED, CEILING, *(f"{name}, {share}" for name in METHODS[1:] for share in (PGR, RECOVERY)))
        ),
        rows=rows,
        names="transition",
        caption=f"Rewards of the two ends, greedy. {SHARES_NOTE}",
    )


def _figure(results: Results) -> Figure:
    def line(axes, found: Results, axis: str, method: str, label: str) -> None:
        sizes = values_of(found, axis)
        estimates = [estimate(select(found, method=method, **{axis: size}), "reward") for size in sizes]
        axes.plot(sizes, [e.mean for e in estimates], marker="o", markersize=4, color=COLOURS[label], label=label)
        low, high = [e.low for e in estimates], [e.high for e in estimates]
        axes.fill_between(sizes, low, high, alpha=0.15, color=COLOURS[label])

    def draw(panels) -> None:
        for axes, (panel, axis) in zip(panels, (("weak size", "weak"), ("strong size", "strong")), strict=True):
            found = select(results, panel=panel)
            for method in METHODS:
                line(axes, found, axis, method, method)
            other = "strong" if axis == "weak" else "weak"
            axes.set_xlabel(f"{axis} model ({other}: {', '.join(values_of(found, other))})")
            axes.set_ylabel("reward, greedy")
        for panel in STAGED:
            if staged := select(results, panel=panel):
                line(panels[1], staged, "strong", "ConG", panel)
        panels[1].legend(frameon=False, fontsize=8)

    return Figure(
        title="Reward against the size of the weak and of the strong model",
        name="model_gap",
        draw=draw,
        panels=2,
        caption="Bands are 95 % intervals. Staged: the weak pair is the step before, from the smallest model upwards.",
    )


def _staged_against_direct(results: Results) -> Text:
    direct = select(results, panel="direct", method="ConG")
    lines = []
    for panel in STAGED:
        staged = select(results, panel=panel, method="ConG")
        gap = difference(select(staged, strong=direct[0].axes["strong"]), direct, "reward")
        alphas = ", ".join(f"{result.axes['alpha']:g}" for result in select(staged, seed=direct[0].axes["seed"]))
        shown = ", which shows no difference" if gap.low <= 0 <= gap.high else ""
        lines.append(f"alphas {alphas}: {gap}{shown}")
    sizes = [str(direct[0].axes["weak"]), *(str(size) for size in values_of(staged, "strong"))]
    return Text(
        title="Staged or direct?",
        text=f"{' -> '.join(sizes)} minus {sizes[0]} -> {sizes[-1]}, ConG, paired by prompt: {'; '.join(lines)}.",
    )
