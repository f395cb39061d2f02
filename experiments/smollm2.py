"""Controlled sentiment: the whole method on real language models, SmolLM2-135M and Gemma-3-270M, on two cores

SmolLM2 is aligned by DPO on its own responses, best against worst by sentiment; its contrastive responses then teach
SmolLM2 itself (self-alignment) and Gemma, of another family and another tokenizer. Sentiment is easily hacked: praise
in place of an answer. Fluency, the log-probability per token under the unaligned model, shows where text falls apart.
The checkpoints are 4-bit files that lie in Python packages, a little worse than the originals.

    cong mirror && cong run experiments/smollm2.py
    cong run experiments/smollm2.py --set seeds=0,1,2 --set families=smollm2
"""

from collections.abc import Iterator
from typing import Any

from cong import methods
from cong.experiment import Cell, Results
from cong.models import Model
from cong.paper import tables
from cong.paper.setups import between
from cong.report import Better, Block, Entry, Figure, Table, Text, ranked_table
from cong.report.curves import Curve, draw_curves
from cong.report.statistics import difference, estimate, select, values_of

SCALE = "scales/sentiment.py"
ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
MEASURES = (
    ("reward", "sentiment"),
    ("implicit_per_token", "implicit reward per token (nats)"),
    ("fluency", "log-probability per token,\nunaligned model (nats)"),
    ("tokens", "length (tokens)"),
)
COLUMNS: dict[str, tuple[str, Better]] = {
    "sentiment": ("reward", "higher"),
    "wins against Base": ("win_rate", "higher"),
    "fluency": ("fluency", "higher"),
    "tokens": ("tokens", None),
}
DIFFERENCES = (
    ("ConG-S", "Weak SFT (post)"),
    ("ConG-S", "WeakTeacher"),
    ("ConG", "ConG-S"),
    ("safe ConG", "ConG-S"),
)


def cells(
    scale,
    *,
    families: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] = (0,),
    alphas: tuple[float, ...] = ALPHAS,
    alpha: float | None = None,
    beta: float = 0.5,
) -> list[Cell]:
    first, *others = scale.sizes
    families = families or (first, *(f"{first}-{other}" for other in others))
    found = []
    for seed in seeds:
        for family in families:
            t = between(family, weak=None, strong=None, scale=scale, seed=seed)
            contrast = scale.alpha[family.partition("-")[0]] if alpha is None else alpha
            axes = {"family": family, "seed": seed}
            found += _models(t, alpha=contrast, beta=beta, axes=axes)
            if family == families[0]:
                found += _pair(t, alphas, {"weak": family.partition("-")[0], "seed": seed})
    return found


def _models(t: methods.Transition, *, alpha: float, beta: float, axes: dict[str, Any]) -> list[Cell]:
    models: dict[str, Model] = {
        "Base": methods.base(t),
        "Weak SFT (post)": methods.weak_sft_post(t),
        "WeakTeacher": methods.weak_teacher(t),
        "WSPO": methods.wspo(t),
        "ConG-S": methods.cong_s(t, alpha=alpha),
        "ConG": methods.cong(t, alpha=alpha, beta=beta),
        "safe ConG": methods.safe_cong(t, alpha=alpha, beta=beta),
    }
    if t.strong == t.weak:
        models["DPO"] = methods.dpo(t)
    found = [
        Cell(
            stage=methods.evaluate(t, model, fluency=True),
            axes={"method": name, **axes, "alpha": alpha, "beta": beta},
            may_lack=name == "safe ConG",
        )
        for name, model in models.items()
    ]
    for judge, explicit in (("sentiment", True), ("implicit", False)):
        stage = methods.pair_agreement(t, alpha=alpha, explicit=explicit)
        found.append(Cell(stage=stage, axes={"agreement": judge, **axes, "alpha": alpha}))
    return found


def _pair(t: methods.Transition, alphas: tuple[float, ...], axes: dict[str, Any]) -> list[Cell]:
    return [
        Cell(
            stage=methods.evaluate_contrastive(t, alpha=value, fluency=True),
            axes={"pair": "contrastive", "alpha": value, **axes},
        )
        for value in alphas
    ]


def report(results: Results) -> Iterator[Block]:
    pair = select(results, pair="contrastive")
    yield _curves(pair)
    yield _pair_table(pair)
    yield Text(text=f"{tables.alpha_summary(pair)}.")
    for family in values_of(results, "family"):
        found = select(results, family=family)
        yield _methods_table(family, found)
        yield _differences(family, found)
        yield _agreement(family, found)


def _curves(found: Results) -> Figure:
    return Figure(
        title="Contrastive decoding of the weak pair against alpha",
        name="smollm2_alpha",
        panels=len(MEASURES),
        draw=lambda panels: _draw(panels, found),
        caption="Greedy contrastive responses to the held-out prompts. Alpha 1 is plain decoding of the aligned model "
        "among its likely tokens, 0 the log-ratio. "
        + tables.interval_note(select(found, alpha=found[0].axes["alpha"])),
    )


def _draw(panels: Any, found: Results) -> None:
    for panel, (name, title) in zip(panels, MEASURES, strict=True):
        curve = Curve.of(found, axis="alpha", measure=name, label=title)
        draw_curves(panel, [curve], x="contrastive coefficient $\\alpha$", y=title)


def _pair_table(found: Results) -> Table:
    rows = [
        (f"{alpha:g}", *(str(estimate(select(found, alpha=alpha), name)) for name, _ in MEASURES))
        for alpha in sorted(values_of(found, "alpha"))
    ]
    return Table(
        title="The same in numbers", columns=("alpha", *(title.replace("\n", " ") for _, title in MEASURES)), rows=rows
    )


def _methods_table(family: str, found: Results) -> Table:
    names = [name for name in values_of(found, "method") if select(found, method=name)]
    rows = {
        name: [Entry.of(estimate(select(found, method=name), measure)) for measure, _ in COLUMNS.values()]
        for name in names
    }
    return ranked_table(
        title=f"{_title(family)}: methods on held-out prompts, greedy",
        columns={title: better for title, (_, better) in COLUMNS.items()},
        rows=rows,
        caption=tables.interval_note(select(found, method=names[0]))
        + " Fluency: log-probability per token under the strong model as it is, in nats.",
    )


def _title(family: str) -> str:
    weak, _, strong = family.partition("-")
    return f"{weak} to {strong}" if strong else f"{weak} to itself"


def _differences(family: str, found: Results) -> Table:
    rows = []
    for better, worse in DIFFERENCES:
        ours = select(found, method=better)
        seeds = {result.axes["seed"] for result in ours}
        theirs = [result for result in select(found, method=worse) if result.axes["seed"] in seeds]
        if ours:
            rows.append(
                (f"{better} - {worse}", *(str(difference(ours, theirs, name)) for name in ("reward", "fluency")))
            )
    return Table(
        title=f"{_title(family)}: differences, paired by prompt and seed",
        columns=("difference", "sentiment", "fluency"),
        rows=rows,
        caption="An interval that holds 0 shows no difference.",
    )


def _agreement(family: str, found: Results) -> Text:
    judged = {judge: select(found, agreement=judge) for judge in values_of(found, "agreement")}
    shares = {judge: [result.values["chosen_better"] for result in one] for judge, one in judged.items()}
    listed = (f"by {judge} {', '.join(f'{100 * share:.0f} %' for share in values)}" for judge, values in shares.items())
    return Text(
        title=f"{_title(family)}: is the chosen response of Stage II better than the rejected one?",
        text=f"Share of the differing pairs in which it is, per seed (ties count one half): {'; '.join(listed)}.",
        warning=min(shares["sentiment"]) < 0.5,
    )
