"""RAVEN: several weak pairs teach one strong model, in distribution and under a shift

Three members label pairs of the strong model's candidates, two per prompt, by their implicit rewards: the smallest size
of a family, that of another family, and a third. In distribution the third is the family's next size; out of
distribution it is the smallest size again, but of another world (another seed's; at scales whose models do not depend
on the seed, aligned in another domain), whose labels are wrong here. RAVEN learns the members' weights beside the
student. Controls: uniform weights, each member alone, the best of these (chosen by the true reward of the students),
and the member whose student has the smallest misfit (chosen without labels).

    cong run experiments/raven.py --set seeds=0,1,2,3,4
    cong run experiments/raven.py --set families=llama --set strong=7B --set rate=0.05
    cong plan experiments/raven.py --scale small --profile gpu24x1
"""

from collections.abc import Iterator, Mapping

from cong import methods
from cong.experiment import Cell, Result, Results
from cong.methods import BASE, CEILING, Transition
from cong.report import Block, Entry, Table, Text, ranked_table
from cong.report.misfit import Candidate, least_misfit
from cong.report.recovery import recovered, share_text, unranked
from cong.report.statistics import difference, estimate, over_seeds, select, values_of
from cong.scales import Scale

IN, OUT = "in distribution", "out of distribution"
FURTHER = 1000
"""How far the seed of the other world is from that of this one."""
UNIFORM, RAVEN = "Uniform weights", "RAVEN"
BEST, CHOSEN = "Best single", "Smallest misfit"
NOTE = (
    "Greedy, held-out prompts; mean and 95 % interval. PGR from the first member's aligned weak model to Ceiling. "
    f"{BEST}: in every seed the member whose student has the highest reward, which takes labels. {CHOSEN}: the member "
    "whose student has the smallest KL(student || weak), without labels. RAVEN's paper: by over 30 % above its "
    "baselines out of distribution, as good or better in it (abstract) ★."
)


def cells(
    scale,
    *,
    families: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] = (0,),
    weak: str | None = None,
    strong: str | None = None,
    rate: float | None = None,
    easy: float = 0.5,
    shift: str | None = None,
) -> list[Cell]:
    found = []
    for family in families or (scale.longest,):
        for seed in seeds:
            sizes = _sizes(scale, family, weak=weak, strong=strong)
            members = _members(scale, family, sizes=sizes, seed=seed, shift=shift)
            t = next(iter(members.values()))
            axes = {"family": family, "seed": seed, "strong": sizes[-1]}
            ends = {BASE: t.strong, CEILING: methods.ceiling(t)}
            found += [Cell(stage=methods.evaluate(t, one), axes={"method": name, **axes}) for name, one in ends.items()]
            found += _singles(t, members, axes, easy=easy)
            for committee, names in _committees(members).items():
                judges = {name: members[name].implicit for name in names}
                found += _together(t, judges, {"committee": committee, **axes}, rate=rate, easy=easy)
    return found


def _sizes(scale: Scale, family: str, *, weak: str | None, strong: str | None) -> tuple[str, str, str]:
    """Return the smallest two sizes of a family and that of the strong model, by default its largest."""
    if family not in scale.sizes:
        raise ValueError(f"families={family}: there are {', '.join(scale.sizes)}")
    ladder = scale.sizes_of(family)
    weak, strong = weak or ladder[0], strong or ladder[-1]
    for name, size in (("weak", weak), ("strong", strong)):
        if size not in ladder:
            raise ValueError(f"{name}={size}: the sizes are {', '.join(ladder)}")
    between = [size for size in ladder if size not in (weak, strong)]
    if not between:
        raise ValueError(f"families={family} has the sizes {', '.join(ladder)}, and three are needed")
    return weak, between[0], strong


def _members(
    scale: Scale, family: str, *, sizes: tuple[str, str, str], seed: int, shift: str | None
) -> dict[str, Transition]:
    """Return four weak pairs by name, as transitions to the same strong model: the last is the shifted one."""
    weak, next_size, strong = sizes
    others = [name for name in scale.sizes if name != family]
    if not others:
        raise ValueError(f"families={family} is the only family of the scale, and another is needed")
    t = methods.transition(family, weak=weak, strong=strong, scale=scale, seed=seed)
    size = scale.sizes_of(others[0])[0]
    foreign = methods.transition(others[0], weak=size, strong=strong, strong_family=family, scale=scale, seed=seed)
    larger = methods.transition(family, weak=next_size, strong=strong, scale=scale, seed=seed)
    elsewhere = _shifted(t, family, sizes=sizes, shift=shift)
    names = (f"{family} {weak}", f"{others[0]} {size}", f"{family} {next_size}", f"{family} {weak} (shifted)")
    return dict(zip(names, (t, foreign, larger, elsewhere), strict=True))


def _shifted(t: Transition, family: str, *, sizes: tuple[str, str, str], shift: str | None) -> Transition:
    """Return the weak pair of another domain; None takes another seed's world, or where there is none, a domain."""
    weak, _, strong = sizes
    make = {"weak": weak, "strong": strong}
    further = methods.transition(family, **make, scale=t.scale, seed=t.seed + FURTHER)
    if shift is None and further.weak != t.weak:
        return further
    domain = shift or t.scale.domains[0]
    return methods.transition(family, **make, scale=t.scale.in_domain(domain), seed=t.seed)


def _committees(members: Mapping[str, Transition]) -> dict[str, tuple[str, ...]]:
    first, second, larger, shifted = members
    return {IN: (first, second, larger), OUT: (first, second, shifted)}


def _singles(t: Transition, members: Mapping[str, Transition], axes: dict, *, easy: float) -> list[Cell]:
    """Return per member its own reward, that of its student, and the misfit of both."""
    found = []
    for name, member in members.items():
        student = methods.raven(t, members=(member.implicit,), rate=0.0, easy=easy)
        stages = {
            "weak": methods.evaluate(t, member.weak_aligned),
            "student": methods.evaluate(t, student),
            "misfit": methods.misfit(t, student, weak=member.weak_aligned),
        }
        found += [Cell(stage=stage, axes={"member": name, "of": of, **axes}) for of, stage in stages.items()]
    return found


def _together(t: Transition, judges: dict, axes: dict, *, rate: float | None, easy: float) -> list[Cell]:
    members = tuple(judges.values())
    students = {
        UNIFORM: methods.raven(t, members=members, rate=0.0, easy=easy),
        RAVEN: methods.raven(t, members=members, rate=rate, easy=easy),
    }
    agreement = methods.member_agreement(t, members=members)
    return [
        *(Cell(stage=methods.evaluate(t, one), axes={"method": name, **axes}) for name, one in students.items()),
        Cell(stage=agreement, axes={"members": " + ".join(judges), **axes}),
    ]


def report(results: Results) -> Iterator[Block]:
    for family in values_of(results, "family"):
        found = select(results, family=family)
        for committee in values_of(found, "committee"):
            names = str(values_of(select(found, committee=committee), "members")[0]).split(" + ")
            title = f"{committee}, {family}"
            rewards = _rewards(found, committee, names)
            yield _table(found, rewards, title)
            yield _differences(rewards, title)
            yield _weights(select(found, committee=committee), names, title)


def _rewards(found: Results, committee: str, names: list[str]) -> dict[str, Results]:
    """Return the results of every row; those of the choices are of another member in every seed."""
    singles = {f"{name} alone": select(found, member=name, of="student") for name in names}
    seeds = values_of(found, "seed")
    return {
        BASE: select(found, method=BASE),
        CEILING: select(found, method=CEILING),
        **singles,
        BEST: [_best(found, names, seed) for seed in seeds],
        CHOSEN: [_least_misfit(found, names, seed) for seed in seeds],
        UNIFORM: select(found, method=UNIFORM, committee=committee),
        RAVEN: select(found, method=RAVEN, committee=committee),
    }


def _best(found: Results, names: list[str], seed: int) -> Result:
    students = [one for name in names for one in select(found, member=name, of="student", seed=seed)]
    return max(students, key=lambda result: result.values["reward"])


def _least_misfit(found: Results, names: list[str], seed: int) -> Result:
    def reward(name: str, of: str) -> float:
        (one,) = select(found, member=name, of=of, seed=seed)
        return one.values["reward"]

    candidates = [
        Candidate(name=name, misfit=reward(name, "misfit"), weak=reward(name, "weak"), student=reward(name, "student"))
        for name in names
    ]
    (chosen,) = select(found, member=least_misfit(candidates).name, of="student", seed=seed)
    return chosen


def _table(found: Results, rewards: dict[str, Results], title: str) -> Table:
    weak = select(found, member=values_of(found, "member")[0], of="weak")
    rows = {}
    for name, results in rewards.items():
        share = recovered(results, floor=weak, ceiling=rewards[CEILING])
        entries = [
            Entry.of(estimate(results, "reward")),
            Entry(text=share_text(share), value=None if share is None else share.mean),
        ]
        rows[name] = unranked(entries) if name in (BASE, CEILING, BEST) else entries
    return ranked_table(title=title, columns={"reward": "higher", "PGR": "higher"}, rows=rows, caption=NOTE)


def _differences(rewards: dict[str, Results], title: str) -> Text:
    others = (UNIFORM, BEST, CHOSEN)
    gaps = [f"{RAVEN} - {other} {difference(rewards[RAVEN], rewards[other], 'reward')}" for other in others]
    return Text(title=f"Differences, {title}", text=f"Paired by prompt and seed: {'; '.join(gaps)}.")


def _weights(found: Results, names: list[str], title: str) -> Table:
    """The members' final weights beside how often they are right about the pairs."""
    trained = [one.store.record(one.cell.stage.evaluated_model)["results"] for one in select(found, method=RAVEN)]
    agreements = [one for one in found if "members" in one.axes]
    keys = [f"weight_{number}" for number in range(1, len(names) + 1)]
    rows = []
    for number, name in enumerate(names):
        weights = [one[keys[number]] for one in trained]
        lowest = sum(one[keys[number]] == min(one[key] for key in keys) for one in trained)
        right = [one.values[f"accuracy_{number + 1}"] for one in agreements]
        rows.append((name, _mean_text(right), _mean_text(weights), f"{lowest} of {len(trained)}"))
    return Table(
        title=f"Members, {title}",
        columns=("member", "right about the pairs", "final weight", "lowest in seeds"),
        rows=rows,
        caption="Right: the share of the pairs that the member has the way round that the true reward has. Weights "
        f"begin at {1 / len(names):.2f}. Mean over seeds, with Student's 95 % interval.",
    )


def _mean_text(values: list[float]) -> str:
    return str(over_seeds(values)) if len(values) > 1 else f"{values[0]:.2f}"
