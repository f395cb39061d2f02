"""The field beside ConG: which share of the gap to a ceiling each method recovers

PGR = (student - weak) / (ceiling - weak), Recovery = (student - base) / (ceiling - base), on the rewards of greedy
responses to held-out prompts. Weak is the aligned weak model, for Weak SFT (pre) the unaligned one; the ceilings are
the strong model with the true reward, by DPO and by SFT. From a family's smallest to its largest size, where the gap is
widest. Beside it: best of n against n (over-optimisation), and whether confident pairs are the right ones. The rows of
weak-to-strong search train no model but one (Search SFT): the weak pair steers the strong model's samples.

    cong run experiments/field.py --set seeds=0,1,2,3,4
    cong run experiments/field.py --set families=qwen --set weak=3B --set strong=7B
    cong plan experiments/field.py --scale small --profile gpu24x1
    cong plan experiments/field.py --scale paper --profile l40x4
"""

import dataclasses
from collections.abc import Iterator, Sequence

from cong import methods
from cong.evaluation import Evaluate
from cong.experiment import Cell, Results
from cong.models import Model
from cong.paper import tables
from cong.paper.setups import Setup, Setups
from cong.report import Block, Entry, Figure, Table, Text, ranked_table
from cong.report.curves import Curve, draw_curves
from cong.report.recovery import GAP_ENDS, PGR, RECOVERY, SHARES_NOTE, shares, unranked
from cong.report.statistics import difference, estimate, select, values_of
from cong.scales import Scale

CEILINGS = {PGR: methods.CEILING, "PGR, SFT ceiling": "Ceiling (SFT)"}
UNRANKED = (*GAP_ENDS, *CEILINGS.values())
PUBLISHED = {
    "Weak SFT (pre)": "PGR about 0.5 in NLP, about 0.1 for reward models ◦",
    "CW-PO": "average, weak DPO to CW-DPO: 57.9 to 60.3 (OPT), 74.8 to 75.6 (Qwen); human labels 58.4, 73.7 ◦",
    "Selective": "consistently above its baselines on three benchmarks (abstract) ★",
    "Trust": "Recovery, naive to trust: 48 to 99 (OLMo2 1B to 7B), 87 to 101 (Qwen3 0.6B to 14B) ◦",
    "W2S-OPD": "reproduced by others, one seed: above distillation of the weak model, as the untrained model ★",
}
"""What the methods' papers report: other models, other tasks, other measures."""
SEARCHES = {"Search 2x2": (2, 2, 30), "Search 4x4": (4, 4, 5)}
"""Beams, expansions and tokens of a chunk: the two settings of weak-to-strong search in its paper."""
LONG, SHORTEST_CHUNK = 512, 2
"""The paper's chunks are for responses of hundreds of tokens. Where `max_new_tokens` is below `LONG`, they shrink in
proportion, to 3 and 2 tokens at tiny scale, whose responses have about 13: choosing single tokens was no better there,
and slower."""
PUBLISHED |= dict.fromkeys(
    SEARCHES, "AlpacaEval 2, LC win rate: 34.4 to 37.9 (Llama-3-70B-Instruct; at which setting was not read) ★"
)
SEARCHED = (
    "Search: samples of the untrained strong model, steered by the weak pair; beams x continuations, of 30 and 5 "
    "tokens as in its paper, of fewer where responses are shorter. Best of 16 (strong): as many samples as Search 4x4 "
    "has places."
)
LABELLED = (
    "Selective and Trust: the true reward of the responses to 100 training prompts is known to them, as to no other "
    "row but the ceilings."
)
SOURCES = (
    "PGR, SFT ceiling: to Ceiling (SFT). In its paper: other models and tasks; ★ is read in the authors' own text or "
    "code, ◦ in an abstract, a survey or a second-hand copy. For comparison, a public sandbox of automated "
    "weak-to-strong research has PGR 0.23 for methods tuned by hand and 0.97 for the best one found in chat ★."
)
JUDGES = {"implicit": False, "explicit": True}
PARTS = 4


def cells(
    scale,
    *,
    setups: Setups = Setups(),
    step: float = 0.5,
    best_of: tuple[int, ...] = (1, 2, 4, 8, 16),
) -> list[Cell]:
    found = []
    for family in setups.families or scale.sizes:
        path = _path(scale, family, weak=setups.weak, strong=setups.strong)
        ends = dataclasses.replace(setups, families=(family,), weak=path[0], strong=path[-1])
        for setup in ends.of(scale):
            t, axes = setup.transition, {**setup.axes, "weak": path[0], "strong": path[-1]}
            for name, model in _models(setup, step=step, path=path).items():
                found.append(Cell(stage=methods.evaluate(t, model), axes={"method": name, **axes}))
            further = _searches(t) | _strong_anchored(t)
            found += [Cell(stage=stage, axes={"method": name, **axes}) for name, stage in further.items()]
            for judge, explicit in JUDGES.items():
                for n in best_of:
                    stage = methods.evaluate_best_of(t, n=n, drawn=max(best_of), explicit=explicit)
                    found.append(Cell(stage=stage, axes={"chosen by": judge, "n": n, **axes}))
            for name, alpha in {"CW-PO": None, "CW-ConG": setup.alpha}.items():
                found.append(Cell(stage=methods.weight_agreement(t, alpha=alpha), axes={"weights of": name, **axes}))
    return found


def _path(scale: Scale, family: str, *, weak: str | None, strong: str | None) -> tuple[str, ...]:
    """Return the sizes from the weak to the strong model; None takes a family's ends. Across families there are two."""
    ours, _, theirs = family.partition("-")
    if {ours, theirs or ours} - set(scale.sizes):
        # `Setups` says which families there are.
        return (weak or "", strong or "")
    ladder, other = scale.sizes_of(ours), scale.sizes_of(theirs or ours)
    ends = weak or ladder[0], strong or other[-1]
    for size, known, name in ((ends[0], ladder, "weak"), (ends[1], other, "strong")):
        if size not in known:
            raise ValueError(f"{name}={size}: the sizes are {', '.join(known)}")
    between = () if theirs else ladder[ladder.index(ends[0]) + 1 : ladder.index(ends[1])]
    return (ends[0], *between, ends[1])


def _models(setup: Setup, *, step: float, path: Sequence[str]) -> dict[str, Model]:
    t, alpha, beta = setup.transition, setup.alpha, setup.beta
    teacher, cong = methods.weak_teacher(t), methods.cong(t, alpha=alpha, beta=beta)
    models: dict[str, Model] = {
        "Weak": t.weak,
        "Weak (aligned)": t.weak_aligned,
        "Base": methods.base(t),
        "Weak SFT (pre)": methods.weak_sft_pre(t),
        "Weak SFT (post)": methods.weak_sft_post(t),
    }
    if len(path) > 2:
        family = str(setup.axes["family"])
        models["Bootstrapped"] = methods.bootstrapped(family, sizes=tuple(path), scale=t.scale, seed=t.seed)
    return models | {
        "Selective": methods.selective(t),
        "Trust": methods.trust(t),
        "Best-of-n SFT": methods.best_of_sft(t),
        "WeakTeacher": teacher,
        "CW-PO": methods.cw_po(t),
        "WSPO": methods.wspo(t),
        "ExPO (WeakTeacher)": methods.expo(t, step=step, aligned=teacher),
        "ConG-S": methods.cong_s(t, alpha=alpha),
        "ConG": cong,
        "CW-ConG": methods.cw_cong(t, alpha=alpha, beta=beta),
        "ExPO (ConG)": methods.expo(t, step=step, aligned=cong),
        "Ceiling (SFT)": methods.ceiling_sft(t),
        "Ceiling": methods.ceiling(t),
    }


def _searches(t: methods.Transition) -> dict[str, Evaluate]:
    """Return weak-to-strong search, the best of as many samples, and the student of the smaller search."""
    share = min(1.0, t.scale.max_new_tokens / LONG)
    chunks = {name: max(SHORTEST_CHUNK, round(share * chunk)) for name, (_, _, chunk) in SEARCHES.items()}
    found = {
        name: methods.evaluate_search(t, beams=beams, expansions=expansions, chunk=chunks[name])
        for name, (beams, expansions, _) in SEARCHES.items()
    }
    student = methods.search_sft(t, beams=2, expansions=2, chunk=chunks["Search 2x2"])
    best = methods.evaluate_best_of_strong(t, n=16, drawn=16)
    return {"Best of 16 (strong)": best, **found, "Search SFT": methods.evaluate(t, student)}


def _strong_anchored(t: methods.Transition) -> dict[str, Evaluate]:
    """Return proxy tuning, its student and W2S-OPD, all with w = 1; they take one tokenizer."""
    if not t.same_tokenizer:
        return {}
    students = {"Proxy SFT": methods.proxy_sft(t), "W2S-OPD": methods.w2s_opd(t)}
    trained = {name: methods.evaluate(t, model) for name, model in students.items()}
    return {"Proxy (untrained)": methods.evaluate_proxy(t), **trained}


def report(results: Results) -> Iterator[Block]:
    families = [str(family) for family in values_of(results, "family")]
    for family in families:
        yield _recovery(select(results, family=family))
        yield _gaps(select(results, family=family))
    if values_of(results, "n"):
        yield _best_of(results, families)
    for family in families:
        yield _agreement(select(results, family=family))


def _title(found: Results) -> str:
    first = found[0].axes
    return f"{str(first['family']).replace('-', ' to ')}, {first['weak']} to {first['strong']}"


def _recovery(found: Results) -> Table:
    rewards = {str(name): select(found, method=name) for name in values_of(found, "method")}
    rows = {name: _row(name, rewards) for name in rewards}
    return ranked_table(
        title=_title(found),
        columns={"reward, greedy": "higher", **dict.fromkeys((*CEILINGS, RECOVERY), "higher"), "in its paper": None},
        rows=rows,
        caption=f"{tables.interval_note(rewards['Base'])} {SHARES_NOTE} {SOURCES} {SEARCHED} {LABELLED}",
    )


def _row(name: str, rewards: dict[str, Results]) -> list[Entry | str]:
    entries = [
        Entry.of(estimate(rewards[name], "reward")),
        *shares(name, rewards, ceilings=tuple(CEILINGS.values())),
    ]
    return [*(unranked(entries) if name in UNRANKED else entries), PUBLISHED.get(name, "")]


def _gaps(found: Results) -> Text:
    rewards = {str(name): select(found, method=name) for name in values_of(found, "method")}
    pairs = [(ceiling, floor) for ceiling in CEILINGS.values() for floor in ("Weak (aligned)", "Base")]
    gaps = {pair: difference(rewards[pair[0]], rewards[pair[1]], "reward") for pair in pairs}
    text = "; ".join(f"{one} - {other} {gap}" for (one, other), gap in gaps.items())
    unsure = any(gap.low <= 0 for gap in gaps.values())
    why = " An interval that is not above 0 shows no gap of which a share could be recovered." if unsure else ""
    return Text(title=f"Gaps, {_title(found)}", text=f"Paired by prompt and seed: {text}.{why}", warning=unsure)


def _best_of(results: Results, families: Sequence[str]) -> Figure:
    def draw(axes) -> None:
        for panel, family in zip([axes] if len(families) == 1 else axes, families, strict=True):
            found = select(results, family=family)
            curves = [
                Curve.of(select(found, **{"chosen by": judge}), axis="n", measure="reward", label=f"by {judge} reward")
                for judge in JUDGES
            ]
            draw_curves(panel, curves, x="n", y="explicit reward", logarithmic=True)
            panel.set_title(_title(found), fontsize=9)
            panel.legend(frameon=False, fontsize=8)

    gains = []
    for family in families:
        found = select(results, family=family)
        for judge in JUDGES:
            chosen = select(found, **{"chosen by": judge})
            first, last = (select(chosen, n=pick(values_of(chosen, "n"))) for pick in (min, max))
            gains.append(f"{family}, by {judge} reward, {difference(last, first, 'reward')}")
    return Figure(
        title="Best of n of the aligned weak model: explicit reward against n",
        name="best_of_n",
        draw=draw,
        panels=len(families),
        caption="Held-out prompts; bars are 95 % intervals. Chosen by the explicit reward it is the most that a choice "
        f"of n can have; chosen by the implicit one, it falls where n over-optimises. Largest n - smallest n: "
        f"{'; '.join(gains)}.",
    )


def _agreement(found: Results) -> Table:
    rows, flat = [], []
    for name in values_of(found, "weights of"):
        parts = [_part(select(found, **{"weights of": name}), number) for number in range(1, PARTS + 1)]
        rows.append((str(name), *(text for _, text in parts)))
        shares = [share for share, _ in parts if share is not None]
        if len(shares) < 2 or shares[-1] <= shares[0]:
            flat.append(str(name))
    warning = f" It does not rise for {', '.join(flat)}: there weighing cannot be expected to help." if flat else ""
    return Table(
        title=f"Are confident pairs the right ones? {_title(found)}",
        columns=("pairs of", *(f"quarter {number} of the weights" for number in range(1, PARTS + 1))),
        rows=rows,
        caption="Share of the pairs whose chosen response has the higher explicit reward (ties count one half), and "
        "mean weight; quarters by weight, the smallest first; means over seeds." + warning,
    )


def _part(found: Results, number: int) -> tuple[float | None, str]:
    known = [result.values for result in found if f"chosen_better_{number}" in result.values]
    if not known:
        return None, "no pairs"
    share, weight = (sum(one[f"{name}_{number}"] for one in known) / len(known) for name in ("chosen_better", "weight"))
    return share, f"{100 * share:.0f} % at {weight:.3f}"
