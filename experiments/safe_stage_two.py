"""A safe Stage II: ConG on the pairs that a judge is sure of, over settings of Stage I

Stage II helps only where the chosen response really beats the rejected one; the better Stage I imitates its data, the
fewer such pairs there are. Safe ConG keeps a pair when its judge, the ConG-S model's own likelihood or the weak pair's
implicit reward, prefers the chosen response by more than a margin; with swap it turns pairs that are the wrong way
round. A margin that leaves no pair leaves nothing to train: the table says so, and no model stands in for it.

    cong run experiments/safe_stage_two.py --set seeds=0,1,2
    cong run experiments/safe_stage_two.py --set stage_one=2e-4x1 --set margins=0,0.5,1,2,4
"""

import dataclasses
import itertools
from collections.abc import Iterator

from cong import methods
from cong.experiment import Cell, Results
from cong.report import Block, Table, Text
from cong.report.statistics import Estimate, difference, estimate, select, values_of
from cong.scoring import ConfidentPairs

STAGE_ONE = ("5e-4x2", "2e-4x1", "1e-4x1", "5e-5x1")
DECODINGS = ("greedy", "sampled")


def cells(
    scale,
    *,
    stage_one: tuple[str, ...] = STAGE_ONE,
    judges: tuple[str, ...] = ("student", "weak pair"),
    margins: tuple[float, ...] = (0.0, 1.0, 2.0),
    swap_margins: tuple[float, ...] = (0.0,),
    seeds: tuple[int, ...] = (0,),
    family: str = "qwen",
    weak: str | None = None,
    strong: str | None = None,
    alpha: float | None = None,
    beta: float = 0.5,
) -> list[Cell]:
    alpha = scale.alpha[family] if alpha is None else alpha
    weak, strong = weak or scale.sizes[family][0], strong or scale.sizes[family][1]
    variants = [*itertools.product(judges, margins, (False,)), *itertools.product(judges, swap_margins, (True,))]
    found = []
    for seed, setting in itertools.product(seeds, stage_one):
        chosen = dataclasses.replace(scale, sft=dataclasses.replace(scale.sft, **_stage_one(setting)))
        t = methods.transition(family, weak=weak, strong=strong, scale=chosen, seed=seed)
        common = {"stage_one": setting, "seed": seed, "alpha": alpha, "beta": beta}
        found += _evaluations(t, methods.cong_s(t, alpha=alpha), {"method": "ConG-S", **common})
        found += _evaluations(t, methods.cong(t, alpha=alpha, beta=beta), {"method": "ConG", **common})
        found += _shares(t, alpha, None, {"method": "ConG", **common})
        for by, margin, swap in variants:
            safe = {"margin": margin, "by": by, "swap": swap}
            axes = {"method": f"safe, {by}, margin {margin:g}" + (", swap" if swap else ""), **common}
            found += _evaluations(t, methods.safe_cong(t, alpha=alpha, beta=beta, **safe), axes)
            found += _shares(t, alpha, methods.confident_pairs(t, alpha=alpha, **safe), axes)
    return found


def _stage_one(setting: str) -> dict:
    rate, _, epochs = setting.partition("x")
    try:
        return {"learning_rate": float(rate), "epochs": int(epochs)}
    except ValueError as error:
        raise ValueError(f"stage_one={setting}: write learning rate x epochs, such as 5e-4x2") from error


def _evaluations(t: methods.Transition, model, axes: dict) -> list[Cell]:
    lacking = str(axes["method"]).startswith("safe")
    stages = {name: methods.evaluate(t, model, sampled=name == "sampled") for name in DECODINGS}
    return [Cell(stage=stage, axes={"decoding": name, **axes}, may_lack=lacking) for name, stage in stages.items()]


def _shares(t: methods.Transition, alpha: float, pairs: ConfidentPairs | None, axes: dict) -> list[Cell]:
    judges = {"explicit": True, "implicit": False}
    stages = {name: methods.pair_agreement(t, alpha=alpha, explicit=is_, pairs=pairs) for name, is_ in judges.items()}
    return [Cell(stage=stage, axes={"agreement": name, **axes}) for name, stage in stages.items()]


def report(results: Results) -> Iterator[Block]:
    for decoding in DECODINGS:
        yield _gains(results, decoding)
    yield _pairs(results)
    yield _harm(results)
    yield _warning(results)


def _gains(results: Results, decoding: str) -> Table:
    settings, names = values_of(results, "stage_one"), values_of(results, "method")
    rows = [("ConG-S", *(str(estimate(_at(results, "ConG-S", s, decoding), "reward")) for s in settings))]
    rows += [(f"{name} - ConG-S", *(_gain_text(results, name, s, decoding) for s in settings)) for name in names[1:]]
    seeds = len(values_of(results, "seed"))
    over = "Student's t over seeds" if seeds > 1 else "bootstrap over prompts"
    return Table(
        title=f"Reward of ConG-S, and what Stage II adds to it, {decoding}",
        columns=("method", *(f"Stage I {setting}" for setting in settings)),
        rows=rows,
        caption=f"Held-out prompts; differences paired by prompt and seed, 95 % intervals ({over}); "
        f"{seeds} seed{'s' if seeds > 1 else ''}. Stage I: learning rate x epochs.",
    )


def _at(results: Results, method: str, setting: str, decoding: str) -> Results:
    return select(results, method=method, stage_one=setting, decoding=decoding)


def _gain(results: Results, method: str, setting: str, decoding: str) -> Estimate | None:
    """Return the gain over ConG-S on the seeds that have a model."""
    found = _at(results, method, setting, decoding)
    seeds = values_of(found, "seed")
    base = [one for one in _at(results, "ConG-S", setting, decoding) if one.axes["seed"] in seeds]
    return difference(found, base, "reward") if found else None


def _gain_text(results: Results, method: str, setting: str, decoding: str) -> str:
    gain = _gain(results, method, setting, decoding)
    shares = select(results, method=method, stage_one=setting, agreement="explicit")
    lacking = len(shares) - len(_at(results, method, setting, decoding))
    if not lacking:
        return str(gain)
    empty = sum(result.values["pairs"] == 0 for result in shares)
    why = "no pairs" if empty == lacking else "not computed"
    return why if gain is None else f"{gain} ({why} in {lacking} of {len(shares)} seeds)"


def _pairs(results: Results) -> Table:
    settings, names = values_of(results, "stage_one"), values_of(results, "method")
    return Table(
        title="Pairs, and the share in which chosen beats rejected",
        columns=("method", *(f"Stage I {setting}" for setting in settings)),
        rows=[
            (name, *(_share_text(select(results, method=name, stage_one=s)) for s in settings)) for name in names[1:]
        ],
        caption="Number of pairs: share by explicit reward, by the weak pair's implicit reward; means over seeds. "
        "Ties count one half.",
    )


def _share_text(found: Results) -> str:
    judged = [select(found, agreement=judge) for judge in ("explicit", "implicit")]
    count = sum(result.values["pairs"] for result in judged[0]) / len(judged[0])
    shares = [[r.values["chosen_better"] for r in one if r.values["pairs"]] for one in judged]
    means = [f"{100 * sum(values) / len(values):.0f} %" for values in shares if values]
    return f"{count:.0f}: {', '.join(means)}" if means else "no pairs"


def _harm(results: Results) -> Table:
    settings, names = values_of(results, "stage_one"), values_of(results, "method")
    rows = []
    for name in names[1:]:
        gains = [(s, d, _gain(results, name, s, d)) for s in settings for d in DECODINGS]
        worse = [f"{s} {d}" for s, d, gain in gains if gain is not None and gain.high < 0]
        better = [f"{s} {d}" for s, d, gain in gains if gain is not None and gain.low > 0]
        rows.append((name, ", ".join(worse) or "nowhere", ", ".join(better) or "nowhere"))
    return Table(
        title="Where Stage II is worse or better than ConG-S beyond the interval",
        columns=("method", "worse", "better"),
        rows=rows,
    )


def _warning(results: Results) -> Text:
    low = [
        f"{result.axes['method']} after {result.axes['stage_one']}, seed {result.axes['seed']}: "
        f"{100 * result.values['chosen_better']:.1f} %"
        for result in select(results, agreement="explicit")
        if result.values.get("chosen_better", 1) < 0.5
    ]
    text = "Below one half, by explicit reward: " + "; ".join(low) + ". There Stage II is trained away from the better "
    return Text(
        title="Is the chosen response better?",
        text=text + "response and cannot be expected to help." if low else "In every set of pairs at least half are.",
        warning=bool(low),
    )
