"""Misfit: does KL(student || weak) tell what a student gains, and which weak model to take?

Of every transition from a smaller to a larger size, within a family and across families: the gain of the student over
its teacher, the aligned weak model, against the misfit, for which no label is needed. Beside it: what a student
corrects of its teacher's mistakes, what it gains on prompts left out of its training, and what more epochs do to it.

    cong run experiments/misfit.py
    cong run experiments/misfit.py --set families=qwen --set seeds=0,1,2,3 --set students=ConG-S
    cong plan experiments/misfit.py --scale small --profile gpu24x1
    cong plan experiments/misfit.py --scale paper --profile l40x4 --set families=qwen,llama,qwen-llama
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

from cong import methods
from cong.evaluation import bootstrap
from cong.experiment import Cell, Results
from cong.methods import WEAK_ALIGNED
from cong.models import Model
from cong.paper.setups import Setup, Setups, across, family_pair, rising
from cong.report import Block, Entry, Figure, Table, ranked_table
from cong.report.correction import correction, gain_left_out, usual_reward
from cong.report.curves import Curve, draw_curves
from cong.report.misfit import Candidate, CorrelationBy, Place, by_strong, candidates_of, correlation, regrets
from cong.report.recovery import UNDEFINED
from cong.report.statistics import Estimate, difference, estimate, select, values_of
from cong.scales import Scale

STUDENTS = ("Weak SFT (post)", "ConG-S")
MISFIT_LABEL = "misfit, nats per response"
MISFITS = {"nats per response": "reward", "nats per token": "implicit_per_token"}
CHAT = "chat"
HELDOUT, TRAINED = "held-out", "trained on"
CORRECTION = (
    "domain, student", "right above", "weak right", "student right", "student right if weak wrong",
    "student wrong if weak right", "gain, held-out", "gain, trained on", "held-out - trained on",
)  # fmt: skip
RIGHT_ABOVE = 0.5
"""Between the rewards of a wrong and of a right answer."""


def cells(
    scale,
    *,
    setups: Setups = Setups(),
    students: tuple[str, ...] = STUDENTS,
    domains: tuple[str, ...] | None = None,
    trained: int = 256,
    epochs: tuple[int, ...] = (1, 2, 3, 5, 8),
) -> list[Cell]:
    if unknown := set(students) - set(STUDENTS):
        raise ValueError(f"students={','.join(unknown)}: there are {', '.join(STUDENTS)}")
    families = setups.families or (*scale.sizes, *across(scale))
    found = []
    for family in families:
        for weak, strong in _pairs(setups, family, scale=scale):
            chosen = dataclasses.replace(setups, families=(family,), weak=weak, strong=strong)
            for setup in chosen.of(scale):
                t, axes = setup.transition, {"panel": "transition", "weak": weak, "strong": strong, **setup.axes}
                teacher = {"of": "reward", "method": WEAK_ALIGNED, **axes}
                found.append(Cell(stage=methods.evaluate(t, t.weak_aligned), axes=teacher))
                found += _measured(setup, students, axes)
    weak, strong = _main_pair(setups, families[0], scale=scale)
    sizes = {"weak": weak, "strong": strong}
    first = dataclasses.replace(setups, families=families[:1], weak=weak, strong=strong)
    for domain in domains or (CHAT, *scale.domains):
        for setup in first.of(scale if domain == CHAT else scale.in_domain(domain)):
            found += _domain(setup, students, {"panel": "domain", "domain": domain, **sizes}, trained=trained)
    for setup in first.of(scale):
        found += _epochs(setup, students, epochs, {"panel": "epochs", **sizes})
    return found


def _pairs(setups: Setups, family: str, *, scale: Scale) -> list[tuple[str, str]]:
    """Return the transitions of a family: all from a smaller to a larger size, or those of the sizes that are given."""
    pairs = rising(family, scale=scale)
    chosen = [(w, s) for w, s in pairs if setups.weak in (None, w) and setups.strong in (None, s)]
    if not chosen:
        known = ", ".join(f"{weak} to {strong}" for weak, strong in pairs)
        raise ValueError(f"{family}: no transition has these sizes; there are {known}")
    return chosen


def _main_pair(setups: Setups, family: str, *, scale: Scale) -> tuple[str, str]:
    """Return the one transition of the other panels: the main table's, where it is among those of the family."""
    ours, theirs = family_pair(family, scale=scale)
    pairs, main = _pairs(setups, family, scale=scale), (scale.sizes[ours][0], scale.sizes[theirs][1])
    return main if main in pairs else pairs[0]


def _models(setup: Setup, students: tuple[str, ...]) -> dict[str, Model]:
    known: dict[str, Model] = {
        "Weak SFT (post)": methods.weak_sft_post(setup.transition),
        "ConG-S": methods.cong_s(setup.transition, alpha=setup.alpha),
    }
    return {name: known[name] for name in students}


def _measured(setup: Setup, students: tuple[str, ...], axes: dict) -> Iterator[Cell]:
    for name, model in _models(setup, students).items():
        common = {"method": name, **axes, **setup.axes}
        yield Cell(stage=methods.evaluate(setup.transition, model), axes={"of": "reward", **common})
        yield Cell(stage=methods.misfit(setup.transition, model), axes={"of": "misfit", **common})


def _domain(setup: Setup, students: tuple[str, ...], axes: dict, *, trained: int) -> Iterator[Cell]:
    t = setup.transition
    for name, model in {WEAK_ALIGNED: t.weak_aligned, **_models(setup, students)}.items():
        common = {"method": name, **axes, **setup.axes}
        yield Cell(stage=methods.evaluate(t, model), axes={"prompts": HELDOUT, **common})
        stage = methods.evaluate_trained_on(t, model, count=trained)
        yield Cell(stage=stage, axes={"prompts": TRAINED, **common})


def _epochs(setup: Setup, students: tuple[str, ...], epochs: tuple[int, ...], axes: dict) -> Iterator[Cell]:
    for count in epochs:
        t = methods.with_epochs(setup.transition, epochs=count)
        yield from _measured(dataclasses.replace(setup, transition=t), students, {"epochs": count, **axes})


def report(results: Results) -> Iterator[Block]:
    transitions = select(results, panel="transition")
    students = {name: candidates_of(transitions, name) for name in _students(transitions)}
    yield _scatter(students)
    yield _correlations(transitions, list(students))
    groups = {name: by_strong(found) for name, found in students.items()}
    if all(groups.values()):
        yield _choosers(groups)
    for name, found in students.items():
        yield _listed(name, found)
    yield _corrections(select(results, panel="domain"))
    yield _overtraining(select(results, panel="epochs"), transitions)


def _students(results: Results) -> list[str]:
    return [str(name) for name in values_of(results, "method") if name != WEAK_ALIGNED]


def _scatter(students: Mapping[str, Mapping[Place, Candidate]]) -> Figure:
    def draw(panels) -> None:
        for axes, (name, found) in zip([panels] if len(students) == 1 else panels, students.items(), strict=True):
            for family in dict.fromkeys(place[0] for place in found):
                points = [candidate for place, candidate in found.items() if place[0] == family]
                axes.scatter([p.misfit for p in points], [p.gain for p in points], s=18, label=_arrow(family))
            axes.axhline(0, color="0.6", linewidth=1)
            axes.set_title(name, fontsize=9)
            axes.set_xlabel(MISFIT_LABEL)
            axes.set_ylabel("gain in reward over the weak model")
            axes.legend(frameon=False, fontsize=8)

    by_rank = (
        f"{name}: Spearman correlation {_correlation(found, 'Spearman')} over {len(found)} transitions"
        for name, found in students.items()
    )
    return Figure(
        title="Gain against misfit",
        name="misfit",
        draw=draw,
        panels=len(students),
        caption="A point is a transition with one seed. Misfit: KL(student || aligned weak model) on held-out prompts, "
        f"over samples of the student. Gain: difference of the rewards of greedy responses. {'; '.join(by_rank)}.",
    )


def _correlation(found: Mapping[Place, Candidate], by: CorrelationBy) -> str:
    pairs = [(candidate.misfit, candidate.gain) for candidate in found.values()]
    result = correlation([misfit for misfit, _ in pairs], [gain for _, gain in pairs], by=by)
    return UNDEFINED if result is None else str(result)


def _correlations(transitions: Results, students: list[str]) -> Table:
    rows = []
    for name, (unit, measure) in itertools.product(students, MISFITS.items()):
        found = candidates_of(transitions, name, misfit=measure)
        coefficients = (_correlation(found, by) for by in ("Pearson", "Spearman"))
        rows.append((f"{name}, {unit}", str(len(found)), *coefficients))
    return Table(
        title="Correlation of gain and misfit",
        columns=("student, misfit", "transitions", "Pearson", "Spearman"),
        rows=rows,
        caption="95 % interval by bootstrap over transitions; it is too narrow, for transitions share weak and strong "
        "models. Across families a token is one of the student's. Theory has gain >= misfit for convex heads that "
        "contain the truth. Language models are no such heads, SFT minimizes the divergence in the other direction, "
        "and the gain holds the weak model's reward: a poor teacher alone raises it.",
    )


def _choosers(groups: Mapping[str, list[list[Candidate]]]) -> Table:
    found = {name: regrets(several) for name, several in groups.items()}
    choosers = list(next(iter(found.values())))
    counts = "; ".join(
        f"{name}: {len(several)} strong models, {sum(map(len, several)) / len(several):.1f} weak models each"
        for name, several in groups.items()
    )
    return ranked_table(
        title="Choosing a weak model: regret against the best one",
        columns=dict.fromkeys(found, "lower"),
        rows={chooser: [_regret(found[name][chooser]) for name in found] for chooser in choosers},
        names="chooser",
        caption="Reward of the best student that any weak model makes of a strong model, minus that of the chosen one; "
        f"mean and 95 % interval by bootstrap over strong models and seeds. {counts}. An error is minus the weak "
        "model's reward; what a nat is worth in rewards is fitted on the other strong models.",
    )


def _regret(values: list[float]) -> Entry:
    if len(values) == 1:
        return Entry(text=f"{values[0]:.2f}", value=values[0])
    found = bootstrap("regret", values, seed=0)
    return Entry.of(Estimate(mean=found["regret"], low=found["regret_low"], high=found["regret_high"], seeds=1))


def _listed(name: str, found: Mapping[Place, Candidate]) -> Table:
    rows = [
        (
            f"{_arrow(family)}, {weak} to {strong}, seed {seed}",
            *(f"{value:.2f}" for value in (one.misfit, one.weak, one.student, one.gain)),
        )
        for (family, weak, strong, seed), one in found.items()
    ]
    columns = ("transition", "misfit, nats per response", "reward of the weak model", "of the student", "gain")
    return Table(title=f"All transitions, {name}", columns=columns, rows=rows, folded=True)


def _corrections(results: Results) -> Table:
    rows = []
    for domain in values_of(results, "domain"):
        found = select(results, domain=domain)
        rows += [_correction_row(str(domain), name, found) for name in _students(found)]
    first = results[0].axes
    sizes = f"{_arrow(str(first['family']))}, {first['weak']} to {first['strong']}"
    return Table(
        title=f"Correction and coverage, {sizes}",
        columns=CORRECTION,
        rows=rows,
        caption="Held-out prompts, greedy; 95 % intervals. In chat a response is right above the median reward of the "
        "weak model's: such a reward has no zero, and with the median both conditions have as many prompts, but for "
        "ties. Were the two models independent, the shares under a condition would be those without. Gains in reward "
        "are over the weak model; training prompts are those that it has spoken on.",
    )


def _correction_row(domain: str, name: str, found: Results) -> tuple[str, ...]:
    student, weak = (select(found, prompts=HELDOUT, method=method) for method in (name, WEAK_ALIGNED))
    seen = [select(found, prompts=TRAINED, method=method) for method in (name, WEAK_ALIGNED)]
    above = usual_reward(weak) if domain == CHAT else RIGHT_ABOVE
    shares = correction(student, weak, right_above=above)
    return (
        f"{domain}, {name}",
        f"{above:.2f}",
        f"{shares.weak_right:.2f}",
        f"{shares.student_right:.2f}",
        *("no prompt" if share is None else str(share) for share in (shares.corrected, shares.spoiled)),
        str(difference(student, weak, "reward")),
        str(difference(seen[0], seen[1], "reward")),
        str(gain_left_out((student, weak), (seen[0], seen[1]))),
    )


def _overtraining(results: Results, transitions: Results) -> Figure:
    students = _students(results)
    same = {axis: results[0].axes[axis] for axis in ("family", "weak", "strong")}
    weak = estimate(select(transitions, method=WEAK_ALIGNED, **same), "reward").mean

    def draw(panels) -> None:
        for axes, of, label in zip(panels, ("reward", "misfit"), ("reward, greedy", MISFIT_LABEL), strict=True):
            found = select(results, of=of)
            curves = [
                Curve.of(select(found, method=name), axis="epochs", measure="reward", label=name) for name in students
            ]
            level = ("aligned weak model", weak) if of == "reward" else None
            draw_curves(axes, curves, x="epochs of SFT", y=label, level=level, logarithmic=True)

    changes = []
    for name in students:
        found = select(results, method=name, of="reward")
        counts = sorted(values_of(found, "epochs"))
        best = max(counts, key=lambda count: estimate(select(found, epochs=count), "reward").mean)
        change = difference(select(found, epochs=best), select(found, epochs=counts[-1]), "reward")
        later = f", at {counts[-1]} its reward is lower by {change}"
        changes.append(f"{name} is best at {best}{later if best != counts[-1] else ', the largest number'}")
    return Figure(
        title="Overtraining: reward and misfit against epochs of SFT",
        name="epochs",
        draw=draw,
        panels=2,
        caption="Held-out prompts; bars are 95 % intervals. Every number of epochs has a schedule of its own. "
        f"{'; '.join(changes)}. The best number is chosen on these prompts, which makes the loss look larger. Labels "
        "are greedy responses: a student becomes sharper than its teacher, which the misfit holds too.",
    )


def _arrow(family: str) -> str:
    return family.replace("-", " to ")
