"""Anchor and data: the weak pair's log-ratio on the weak or on the strong model, fixed texts or the student's own

    anchor   fixed texts                      own rollouts
    weak     ConG-S                           OPD (weak anchor)
    strong   Proxy SFT, WSPO                  W2S-OPD

All hold the same weak pair, and have one budget: one response per training prompt, read by the student as often as in
Stage I. ConG-S is anchored on the weak model (Eq. 7), proxy tuning on the strong one. Both teachers of OPD and proxy
tuning have the weight 1 / alpha, so that only the anchor differs: z + r / alpha on the weak model's z ranks tokens as F
does, but for V_head. Further rows have w = 1, as in proxy tuning's own paper. Rounds of OPD part the prompts.

    cong run experiments/anchors.py --set seeds=0,1,2,3,4
    cong run experiments/anchors.py --set families=qwen --set rounds=4 --set weight=1.5
    cong plan experiments/anchors.py --scale small --profile gpu24x1
    cong plan experiments/anchors.py --scale paper --profile l40x4 --set weak=3B --set strong=7B --set families=qwen
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from cong import methods
from cong.experiment import Cell, Result, Results
from cong.graph.stage import Stage
from cong.models import Model
from cong.paper import tables
from cong.paper.setups import Setup, Setups
from cong.report import Block, Entry, Table, Text, ranked_table
from cong.report.recovery import recovered, share_text
from cong.report.statistics import Estimate, difference, estimate, select, values_of
from cong.scales import Scale
from cong.training.finetune import Finetune

PLACES = {
    "ConG-S": ("weak", "fixed"),
    "OPD (weak anchor)": ("weak", "own"),
    "Proxy SFT": ("strong", "fixed"),
    "Proxy SFT (w = 1)": ("strong", "fixed"),
    "WSPO": ("strong", "fixed"),
    "W2S-OPD": ("strong", "own"),
    "W2S-OPD (w = 1)": ("strong", "own"),
}
"""Where the methods stand: what the log-ratio is anchored on, and what the student learns from."""
DATA = {"fixed": "fixed texts", "own": "the student's own rollouts"}
STEPS = {
    "anchor, fixed texts": ("Proxy SFT", "ConG-S"),
    "anchor, own rollouts": ("W2S-OPD", "OPD (weak anchor)"),
    "data, weak anchor": ("OPD (weak anchor)", "ConG-S"),
    "data, strong anchor": ("W2S-OPD", "Proxy SFT"),
    "loss, strong anchor, fixed texts": ("WSPO", "Proxy SFT"),
    "training, strong anchor": ("Proxy SFT", "Proxy (untrained)"),
    "weight, fixed texts": ("Proxy SFT", "Proxy SFT (w = 1)"),
    "weight, own rollouts": ("W2S-OPD", "W2S-OPD (w = 1)"),
}
"""What changes between two methods, the second taken from the first."""
UNTRAINED = ("Proxy (untrained)", "Proxy (untrained, w = 1)")
UNRANKED = ("Weak (aligned)", "Base", "Ceiling")
TOKENS = ("generated", "read by teachers", "trained")


def cells(scale, *, setups: Setups = Setups(), weight: float | None = None, rounds: int = 2) -> list[Cell]:
    found = []
    if weight == 1.0:
        raise ValueError("weight = 1 is that of the further rows: leave it out, or choose another")
    for family in setups.families or scale.sizes:
        for setup in _ends(setups, scale, family).of(_one_budget(scale)):
            t = setup.transition
            chosen = _weight(setup, weight)
            axes = {**setup.axes, "weight": chosen, "rounds": rounds}
            for name, model in _models(setup, weight=chosen, rounds=rounds).items():
                found.append(Cell(stage=methods.evaluate(t, model), axes={"method": name, **axes}))
            for name, given in zip(UNTRAINED, (chosen, 1.0), strict=True):
                found.append(Cell(stage=methods.evaluate_proxy(t, weight=given), axes={"method": name, **axes}))
    return found


def _ends(setups: Setups, scale: Scale, family: str) -> Setups:
    """Return the set-ups of a family between its smallest and largest size, where the gap is widest."""
    sizes = scale.sizes_of(family) if family in scale.sizes else (None,)
    weak, strong = setups.weak or sizes[0], setups.strong or sizes[-1]
    return dataclasses.replace(setups, families=(family,), weak=weak, strong=strong)


def _one_budget(scale: Scale) -> Scale:
    """Return the scale in which every method reads its responses as often as Stage I does."""
    epochs = scale.sft.epochs
    return dataclasses.replace(
        scale,
        wspo=dataclasses.replace(scale.wspo, epochs=epochs),
        distil=dataclasses.replace(scale.distil, epochs=epochs),
    )


def _weight(setup: Setup, weight: float | None) -> float:
    """Return w; None takes 1 / alpha, with which the weak anchor has the greedy choices of ConG's F."""
    if weight is not None:
        return weight
    if not setup.alpha > 0:
        raise ValueError(f"alpha = {setup.alpha} is not above 0: the weight is 1 / alpha")
    return 1 / setup.alpha


def _models(setup: Setup, *, weight: float, rounds: int) -> dict[str, Model]:
    t, alpha = setup.transition, setup.alpha
    return {
        "Weak (aligned)": t.weak_aligned,
        "Base": methods.base(t),
        "ConG-S": methods.cong_s(t, alpha=alpha),
        "OPD (weak anchor)": methods.w2s_opd(t, weight=weight, rounds=rounds, anchor="weak"),
        "Proxy SFT": methods.proxy_sft(t, weight=weight),
        "Proxy SFT (w = 1)": methods.proxy_sft(t),
        "WSPO": methods.wspo(t),
        "W2S-OPD": methods.w2s_opd(t, weight=weight, rounds=rounds),
        "W2S-OPD (w = 1)": methods.w2s_opd(t, rounds=rounds),
        "Ceiling": methods.ceiling(t),
    }


def report(results: Results) -> Iterator[Block]:
    for family in values_of(results, "family"):
        found = select(results, family=family)
        rewards = {str(name): select(found, method=name) for name in values_of(found, "method")}
        yield _square(rewards, family=family)
        yield _steps(rewards, family=family)
        yield _methods(rewards, family=family)


def _square(rewards: dict[str, Results], *, family: str) -> Table:
    """The 2 x 2: reward and PGR of the methods in each place."""
    rows = [
        (f"{anchor} anchor", *("; ".join(_said(name, rewards) for name in _at(anchor, data)) for data in DATA))
        for anchor in ("weak", "strong")
    ]
    around = ", ".join(f"{name} {estimate(rewards[name], 'reward')}" for name in (*UNRANKED, *UNTRAINED))
    return Table(
        title=f"Anchor and data, {family}",
        columns=("the log-ratio's anchor", *DATA.values()),
        rows=rows,
        caption=f"Reward of greedy responses to held-out prompts, and PGR. For comparison: {around}. "
        f"{tables.interval_note(rewards['Base'])}",
    )


def _at(anchor: str, data: str) -> list[str]:
    return [name for name, place in PLACES.items() if place == (anchor, data)]


def _said(name: str, rewards: dict[str, Results]) -> str:
    return f"{name} {estimate(rewards[name], 'reward')}, PGR {share_text(_pgr(name, rewards))}"


def _pgr(name: str, rewards: dict[str, Results]) -> Estimate | None:
    return recovered(rewards[name], floor=rewards["Weak (aligned)"], ceiling=rewards["Ceiling"])


def _steps(rewards: dict[str, Results], *, family: str) -> Text:
    """What the anchor, the data and the loss change."""
    gaps = {
        f"{what}: {one} - {other}": difference(rewards[one], rewards[other], "reward")
        for what, (one, other) in STEPS.items()
    }
    return Text(
        title=f"What changes the reward, {family}",
        text=f"Paired by prompt and seed. {'; '.join(f'{name} {gap}' for name, gap in gaps.items())}.",
    )


def _methods(rewards: dict[str, Results], *, family: str) -> Table:
    columns: dict[str, Any] = {"reward": "higher", "PGR": "higher", "Recovery": "higher"}
    return ranked_table(
        title=f"Rewards and tokens, {family}",
        columns={**columns, **{f"{name}, thousand tokens": None for name in TOKENS}},
        rows={name: _row(name, rewards) for name in rewards},
        caption="Tokens, means over seeds, by the records: of responses that the student is trained on; of responses "
        "that frozen models read for the loss, once per model; of prompts and responses in all epochs of the training. "
        "The weak model's alignment is not counted for students, and of a DPO neither candidates nor the reference "
        "pass. PGR: from the aligned weak model to Ceiling; Recovery: from Base.",
    )


def _row(name: str, rewards: dict[str, Results]) -> list[Entry | str]:
    shares = [_pgr(name, rewards), recovered(rewards[name], floor=rewards["Base"], ceiling=rewards["Ceiling"])]
    entries = [Entry.of(estimate(rewards[name], "reward")), *(_share(share) for share in shares)]
    ranked = entries if name not in UNRANKED else [dataclasses.replace(entry, value=None) for entry in entries]
    return [*ranked, *_tokens(rewards[name])]


def _share(share: Estimate | None) -> Entry:
    return Entry(text=share_text(share), value=None if share is None else share.mean)


def _tokens(results: Results) -> list[str]:
    """Return thousands of tokens of each kind, means over seeds; nothing where no student is trained."""
    counts = [_counted(result) for result in results]
    means = [sum(one[kind] for one in counts) / len(counts) for kind in TOKENS]
    return [f"{mean / 1000:,.1f}" if mean else "" for mean in means]


def _counted(result: Result) -> dict[str, int]:
    model = result.cell.stage.evaluated_model
    stages = model.trainings if isinstance(model, Stage) else ()
    trained = [stage for stage in stages if isinstance(stage, Finetune)]
    kinds = ([stage.data for stage in trained], [stage for stage in stages if stage not in trained], trained)
    return {kind: _used(found, result) for kind, found in zip(TOKENS, kinds, strict=True)}


def _used(stages: Iterable[Stage], result: Result) -> int:
    return sum(stage.usage(result.store.record(stage)["results"]).tokens for stage in dict.fromkeys(stages))
