"""When to trust the weak model: own answers by P(IK), and weak labels by the weak model's own states

Selective: the strong model is trained on its own greedy answer where a probe of its hidden state at the prompt says
that it is better than the mean weak label, and on the weak label elsewhere. Trust: it is trained on the share of weak
labels that a probe of the weak model's state at the label's end trusts most. Both probes see the true reward of the
responses to `labels` training prompts. Controls of equal size: the share at random, that with the highest likelihood
under the weak model, and by the true reward of all labels (the most that a filter can have).

    cong run experiments/selective.py --set seeds=0,1,2,3,4
    cong run experiments/selective.py --set domains=math --set labels=50
    cong plan experiments/selective.py --scale small --profile gpu24x1
"""

import dataclasses
from collections.abc import Iterator

from cong import methods
from cong.experiment import Cell, Results
from cong.methods import BASE, CEILING, WEAK, WEAK_ALIGNED
from cong.models import Model
from cong.paper import tables
from cong.paper.setups import Setups
from cong.probing import ProbeQuality
from cong.report import Block, Entry, Table, Text, ranked_table
from cong.report.recovery import PGR, RECOVERY, SHARES_NOTE, shares, unranked
from cong.report.statistics import difference, estimate, over_seeds, select, values_of
from cong.scales import Scale

NAIVE, RANDOM = "Weak SFT (post)", "Random share"
UNRANKED = (WEAK, WEAK_ALIGNED, BASE, CEILING, "True share")
PUBLISHED = {
    "Trust": "Recovery, naive to trust: 48 to 99 (OLMo2 1B to 7B), 87 to 101 (Qwen3 0.6B to 14B) ◦",
    "Selective": "consistently above its baselines on three benchmarks (abstract) ★",
}
"""What the papers report: other models, other tasks, class labels in place of texts."""
STEPS = (
    ("Selective", NAIVE),
    ("Selective", "Selective (not smoothed)"),
    ("Trust", RANDOM),
    ("Trust", NAIVE),
    ("Trust (mean state)", RANDOM),
    ("True share", RANDOM),
)
FIGURES = {
    "auc": "AUC", "base_rate": "right of all", "purity": "right of the kept", "kept_share": "kept",
    "reward_all": "reward of all", "reward_kept": "reward of the kept",
}  # fmt: skip


def cells(
    scale,
    *,
    setups: Setups = Setups(),
    domains: tuple[str, ...] | None = None,
    labels: int = 100,
    share: float = 0.5,
    smoothing: float = 0.5,
) -> list[Cell]:
    found = []
    for domain in domains or ("chat", *scale.domains[:1]):
        inside = scale if domain == "chat" else scale.in_domain(domain)
        for setup in _ends(setups, inside).of(inside):
            t, axes = setup.transition, {"domain": domain, **setup.axes, "labels": labels, "share": share}
            models = _models(t, labels=labels, share=share, smoothing=smoothing)
            found += tables.gap_cells(t, axes=axes)
            found += [
                Cell(stage=methods.evaluate(t, model), axes={"method": name, **axes}) for name, model in models.items()
            ]
            probes = _probes(t, labels=labels, share=share, smoothing=smoothing)
            found += [Cell(stage=stage, axes={"probe": name, **axes}) for name, stage in probes.items()]
    return found


def _ends(setups: Setups, scale: Scale) -> Setups:
    """Return the set-ups of one family, between its smallest and its largest size unless others are given."""
    families = setups.families or (scale.longest,)
    sizes = scale.sizes_of(families[0]) if families[0] in scale.sizes else (None,)
    return dataclasses.replace(
        setups, families=families, weak=setups.weak or sizes[0], strong=setups.strong or sizes[-1]
    )


def _models(t: methods.Transition, *, labels: int, share: float, smoothing: float) -> dict[str, Model]:
    filters = {
        RANDOM: methods.by_chance(t),
        "Likely share": methods.by_confidence(t),
        "True share": methods.by_truth(t),
    }
    return {
        NAIVE: methods.weak_sft_post(t),
        "Own answers": methods.own_answers(t),
        "Selective": methods.selective(t, labels=labels, smoothing=smoothing),
        "Selective (not smoothed)": methods.selective(t, labels=labels, smoothing=0),
        "Trust": methods.trust(t, labels=labels, share=share),
        "Trust (mean state)": methods.trust(t, labels=labels, share=share, token="mean"),
        **{name: methods.filtered(t, scored=scored, share=share) for name, scored in filters.items()},
    }


def _probes(t: methods.Transition, *, labels: int, share: float, smoothing: float) -> dict[str, ProbeQuality]:
    knows, trusts = methods.p_ik(t, labels=labels), methods.trust_score(t, labels=labels)
    smooth = methods.p_ik_smoothed(t, labels=labels, smoothing=smoothing)
    means = methods.p_ik(t, labels=labels, token="mean"), methods.trust_score(t, labels=labels, token="mean")
    return {
        "P(IK)": methods.probe_quality(t, knows),
        "P(IK), smoothed": methods.probe_quality(t, knows, scored=smooth),
        "P(IK), mean state": methods.probe_quality(t, means[0]),
        "trust": methods.probe_quality(t, trusts, share=share),
        "trust, mean state": methods.probe_quality(t, means[1], share=share),
        "likelihood": methods.probe_quality(t, trusts, scored=methods.by_confidence(t), share=share),
        "chance": methods.probe_quality(t, trusts, scored=methods.by_chance(t), share=share),
    }


def report(results: Results) -> Iterator[Block]:
    for domain in values_of(results, "domain"):
        inside = select(results, domain=domain)
        for family in values_of(inside, "family"):
            found = select(inside, family=family)
            first = found[0].axes
            title = f"{domain}, {family}, {first['labels']} labelled prompts, share {first['share']:g}"
            yield _rewards(found, title)
            yield _steps(found, title)
            yield _qualities(found, title)


def _rewards(found: Results, title: str) -> Table:
    rewards = {str(name): select(found, method=name) for name in values_of(found, "method")}
    return ranked_table(
        title=title,
        columns={"reward, greedy": "higher", PGR: "higher", RECOVERY: "higher", "in its paper": None},
        rows={name: _row(name, rewards) for name in rewards},
        caption=f"{tables.interval_note(rewards[BASE])} {SHARES_NOTE} In its paper: ★ is read in the authors' own "
        "text, ◦ in a second-hand copy.",
    )


def _row(name: str, rewards: dict[str, Results]) -> list[Entry | str]:
    entries = [Entry.of(estimate(rewards[name], "reward")), *shares(name, rewards)]
    return [*(unranked(entries) if name in UNRANKED else entries), PUBLISHED.get(name, "")]


def _steps(found: Results, title: str) -> Text:
    pairs = {pair: [select(found, method=name) for name in pair] for pair in STEPS}
    gaps = [f"{one} - {other} {difference(both[0], both[1], 'reward')}" for (one, other), both in pairs.items()]
    return Text(title=f"Differences, {title}", text=f"Paired by prompt and seed: {'; '.join(gaps)}.")


def _qualities(found: Results, title: str) -> Table:
    names = values_of(found, "probe")
    return Table(
        title=f"Probes, {title}",
        columns=("score", *FIGURES.values()),
        rows=[(str(name), *(_figure(select(found, probe=name), figure) for figure in FIGURES)) for name in names],
        caption="On training prompts without labels. Right: of the strong model's answers, better than the mean weak "
        "label; of weak labels, better than their mean (in math and code both are: right). Kept: of P(IK) above 0.5, "
        "of weak labels the share with the highest scores. Mean over seeds, with Student's 95 % interval.",
    )


def _figure(found: Results, name: str) -> str:
    values = [result.values | {"kept_share": result.values["kept"] / result.values["rows"]} for result in found]
    known = [float(one[name]) for one in values if name in one]
    if not known:
        return "undefined"
    return str(over_seeds(known)) if len(known) > 1 else f"{known[0]:.2f}"
