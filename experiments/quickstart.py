"""Quickstart: the five methods in one table, and what contrastive decoding does to rewards

Base, Weak SFT (pre), Weak SFT (post), ConG-S and ConG, and the weak pair's rewards against alpha.

At tiny scale the world is synthetic, its reward is known exactly, and everything runs on a CPU in minutes.
At paper scale the same graph is Qwen2.5-3B to 7B on UltraFeedback, judged by ArmoRM; at small scale 0.5B to 1.5B on an
eighth of it, judged by a smaller reward model, on one GPU.

    cong run experiments/quickstart.py                               one seed
    cong run experiments/quickstart.py --set seeds=0,1,2             three seeds, with intervals over them
    cong run experiments/quickstart.py --set sft_learning_rate=2e-4 --set sft_epochs=1    a gentler Stage I
    cong plan experiments/quickstart.py --scale small --profile gpu24x1
    cong plan experiments/quickstart.py --scale paper --profile l40x4
"""

import dataclasses
from collections.abc import Iterator

from cong import methods
from cong.experiment import Cell, Results
from cong.paper import tables
from cong.report import Better, Block, Entry, Figure, Table, Text, ranked_table
from cong.report.statistics import difference, estimate, select, values_of

METHODS = ("Base", "Weak SFT (pre)", "Weak SFT (post)", "ConG-S", "ConG")
ALPHAS = tuple(step / 10 for step in range(11))


def cells(
    scale,
    *,
    alpha: float | None = None,
    beta: float = 0.5,
    seeds: tuple[int, ...] = (0,),
    alphas: tuple[float, ...] = ALPHAS,
    weak: str | None = None,
    strong: str | None = None,
    sft_learning_rate: float | None = None,
    sft_epochs: int | None = None,
) -> list[Cell]:
    stage_one = {"learning_rate": sft_learning_rate, "epochs": sft_epochs}
    chosen = {name: value for name, value in stage_one.items() if value is not None}
    scale = dataclasses.replace(scale, sft=dataclasses.replace(scale.sft, **chosen))
    found = []
    alpha = scale.alpha["qwen"] if alpha is None else alpha
    weak, strong = weak or scale.sizes["qwen"][0], strong or scale.sizes["qwen"][1]
    for seed in seeds:
        t = methods.transition("qwen", weak=weak, strong=strong, scale=scale, seed=seed)
        common = {"seed": seed, "weak": weak, "strong": strong}
        models = {
            "Base": methods.base(t),
            "Weak SFT (pre)": methods.weak_sft_pre(t),
            "Weak SFT (post)": methods.weak_sft_post(t),
            "ConG-S": methods.cong_s(t, alpha=alpha),
            "ConG": methods.cong(t, alpha=alpha, beta=beta),
        }
        settings = {"ConG-S": {"alpha": alpha}, "ConG": {"alpha": alpha, "beta": beta}}
        for name, model in models.items():
            axes = {"method": name, **settings.get(name, {}), **common}
            found.append(Cell(stage=methods.evaluate(t, model), axes={**axes, "decoding": "greedy"}))
            found.append(Cell(stage=methods.evaluate(t, model, sampled=True), axes={**axes, "decoding": "sampled"}))
        for value in alphas:
            axes = {"pair": "contrastive", "alpha": value, **common}
            found.append(Cell(stage=methods.evaluate_contrastive(t, alpha=value), axes=axes))
        for judge, explicit in (("explicit", True), ("implicit", False)):
            stage = methods.pair_agreement(t, alpha=alpha, explicit=explicit)
            found.append(Cell(stage=stage, axes={"agreement": judge, "alpha": alpha, **common}))
    return found


def report(results: Results) -> Iterator[Block]:
    yield _methods_table(results)
    yield _differences(results)
    yield _agreement(results)
    yield _alpha_figure(results)
    yield _alpha_text(results)


def _methods_table(results: Results) -> Table:
    measures: tuple[tuple[str, str, str, Better], ...] = (
        ("reward, greedy", "greedy", "reward", "higher"),
        ("reward, sampled", "sampled", "reward", "higher"),
        ("wins against base", "greedy", "win_rate", "higher"),
        ("implicit reward per token", "greedy", "implicit_per_token", None),
        ("tokens", "greedy", "tokens", None),
    )
    rows = {
        method: [
            Entry.of(estimate(select(results, method=method, decoding=decoding), name))
            for _, decoding, name, _ in measures
        ]
        for method in METHODS
    }
    return ranked_table(
        title="Methods on held-out prompts",
        columns={title: better for title, _, _, better in measures},
        rows=rows,
        caption=tables.interval_note(select(results, method=METHODS[0], decoding="greedy"))
        + " Sampled: temperature 0.7, top-p 0.95, mean of four samples per prompt.",
    )


def _differences(results: Results) -> Table:
    pairs = (("Weak SFT (post)", "Weak SFT (pre)"), ("ConG-S", "Weak SFT (post)"), ("ConG", "ConG-S"))
    rows = []
    for better, worse in pairs:
        found = [
            difference(
                select(results, method=better, decoding=decoding),
                select(results, method=worse, decoding=decoding),
                "reward",
            )
            for decoding in ("greedy", "sampled")
        ]
        rows.append((f"{better} - {worse}", *(str(item) for item in found)))
    return Table(
        title="Differences of reward, paired by prompt",
        columns=("difference", "greedy", "sampled"),
        rows=rows,
        caption="An interval that holds 0 shows no difference.",
    )


def _agreement(results: Results) -> Text:
    shares = {
        judge: [result.values["chosen_better"] for result in select(results, agreement=judge)]
        for judge in ("explicit", "implicit")
    }
    text = "; ".join(
        f"by {judge} reward {', '.join(f'{100 * share:.0f} %' for share in found)}" for judge, found in shares.items()
    )
    weak = min(shares["explicit"]) < 0.5
    return Text(
        title="Is the chosen response of Stage II better than the rejected one?",
        text=f"Share of the differing pairs in which it is, per seed (ties count one half): {text}. "
        + (
            "Below one half, Stage II is trained away from the better response and cannot be expected to help."
            if weak
            else ""
        ),
        warning=weak,
    )


def _alpha_figure(results: Results) -> Figure:
    found = [result for result in results if "pair" in result.axes]
    alphas = values_of(found, "alpha")

    def draw(axes) -> None:
        names = (("reward", "explicit reward"), ("implicit_per_token", "implicit reward per token (nats)"))
        for panel, (name, label) in zip(axes, names, strict=True):
            estimates = [estimate(select(found, alpha=alpha), name) for alpha in alphas]
            for seed in values_of(found, "seed"):
                one = [float(result.values[name]) for result in select(found, seed=seed)]
                panel.plot(alphas, one, color="#1f5fbf", alpha=0.35, linewidth=0.8)
            panel.plot(alphas, [e.mean for e in estimates], marker="o", markersize=4, color="#1f5fbf")
            panel.fill_between(
                alphas, [e.low for e in estimates], [e.high for e in estimates], alpha=0.18, color="#1f5fbf"
            )
            panel.set_xlabel("contrastive coefficient $\\alpha$")
            panel.set_ylabel(label)

    return Figure(
        title="Contrastive decoding of the weak pair: reward against alpha",
        name="reward_alpha",
        draw=draw,
        panels=2,
        caption="Greedy contrastive responses to the held-out prompts; the band is the 95 % interval, thin lines are "
        "the seeds. Alpha 1 is plain decoding of the aligned weak model among its likely tokens, 0 the log-ratio.",
    )


def _alpha_text(results: Results) -> Text:
    return Text(text=f"{tables.alpha_summary([result for result in results if 'pair' in result.axes])}.")
