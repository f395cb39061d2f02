"""The end of every report: what each method cost, what the run cost per kind of stage and per stage, and a CSV of it.

blocks = cost_blocks(plan.stages, store, results)
text = as_csv(plan.stages, store)
"""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cong.experiment import Results
from cong.graph.stage import Stage
from cong.graph.store import StageStore
from cong.report.blocks import Table
from cong.report.costs import Cost, cost_of, method_costs, unit_of
from cong.report.statistics import select

_METHODS = """\
Mean per model, with its standard error where there are several (seeds, settings). Training: from the starting to the \
final model, reference log-probabilities included. All that it needs: with the data, and the alignment of the weak \
model. What methods share counts in full for each of them, and for none in the column of what no other method needs, \
which is 0 for a method that another one builds on. Evaluation and the models to start from are left out."""
_STAGES = """\
Tokens are those generated, scored by a model or trained on; training counts prompts, and every epoch. A stage that \
was interrupted counts from its last start; an answer of a judge that two stages share counts in both."""
APART = ("family", "domain", "weak", "strong")
"""Axes whose values have methods of their own: their costs are not averaged."""
STAGES = 100
"""So many stages are on the page; the CSV has all."""
_SHORTEST = 0.0001


@dataclass(frozen=True, kw_only=True)
class Spent:
    """A finished stage, and what it took."""

    stage: Stage
    cost: Cost
    tokens_per_second: float | None

    @classmethod
    def of(cls, stage: Stage, store: StageStore) -> "Spent":
        """Return what the store's record says."""
        record = store.record(stage)
        rate = stage.usage(record["results"]).tokens_per_second
        return cls(stage=stage, cost=cost_of(stage, record), tokens_per_second=rate)


def cost_blocks(stages: Iterable[Stage], store: StageStore, results: Results) -> Iterator[Table]:
    """Yield the tables of what was spent, the most useful first."""
    spent = [Spent.of(stage, store) for stage in stages if store.is_complete(stage)]
    if methods := methods_table(results):
        yield methods
    yield _kinds_table(spent)
    yield _stages_table(spent)


def methods_table(results: Results) -> Table | None:
    """Return hours per method in the form of the paper's table 5; None where no result has a trained model."""
    apart = [axis for axis in APART if len({result.axes.get(axis) for result in results}) > 1]
    places = dict.fromkeys(
        tuple((axis, result.axes[axis]) for axis in apart if axis in result.axes) for result in results
    )
    found = [(place, cost) for place in places for cost in method_costs(select(results, **dict(place)))]
    if not any(one.stages for _, cost in found for one in cost.training):
        return None
    unit = unit_of(one for _, cost in found for one in cost.needed)
    rows = [
        (
            ", ".join([cost.method, *map(_place_text, place)]),
            *(_mean_hours(costs, unit) for costs in (cost.training, cost.needed, cost.own)),
            str(len(cost.training)),
        )
        for place, cost in found
    ]
    return Table(
        title=f"What each method cost, in {unit}-hours",
        columns=("method", "its training", "all that it needs", "needed by no other method", "models"),
        rows=rows,
        caption=f"{_METHODS} {_what_hours_are(unit)}",
    )


def _place_text(place: tuple[str, Any]) -> str:
    axis, value = place
    return f"{axis} {value}" if axis in ("weak", "strong") else str(value)


def _mean_hours(costs: Sequence[Cost], unit: str) -> str:
    hours = [cost.hours(unit) for cost in costs]
    mean = statistics.mean(hours)
    if len(hours) < 2 or mean == 0:
        return _short(mean)
    # As many digits as the mean has with three that count.
    digits = max(0, 2 - math.floor(math.log10(mean)))
    return f"{mean:.{digits}f} ± {statistics.stdev(hours) / len(hours) ** 0.5:.{digits}f}"


def _short(hours: float) -> str:
    return f"{hours:.3g}" if hours == 0 or hours >= _SHORTEST else f"< {_SHORTEST}"


def _what_hours_are(unit: str) -> str:
    if unit == "GPU":
        return "Hours are seconds of a stage times the GPUs that it held."
    return "No GPU took part: hours are seconds of a stage times the CPU cores that it held."


def _kinds_table(spent: Sequence[Spent]) -> Table:
    kinds: dict[str, list[Spent]] = {}
    for one in spent:
        kinds.setdefault(one.stage.name, []).append(one)
    total = _total(spent)
    unit = unit_of([total])
    columns = ("stage", "count", f"{unit}-hours", "seconds in all", "longest", "tokens", "tokens per second")
    bill = f" Judges: {total.judge_tokens:,} tokens, {_dollars(total)}." if total.judge_tokens else ""
    return Table(
        title="What was run",
        columns=(*columns, *(("judge tokens", "judge US$") if total.judge_tokens else ())),
        rows=[_kind_row(name, found, unit, judged=total.judge_tokens > 0) for name, found in kinds.items()],
        caption=f"{len(spent)} stages, {total.seconds:.0f} s of stage time in all, {_short(total.hours(unit))} "
        f"{unit}-hours.{bill} {_what_hours_are(unit)} {_STAGES}",
    )


def _kind_row(name: str, spent: Sequence[Spent], unit: str, *, judged: bool) -> tuple[str, ...]:
    total = _total(spent)
    rates = [one.tokens_per_second for one in spent if one.tokens_per_second]
    bill = (_count(total.judge_tokens), _dollars(total) if total.judge_tokens else "") if judged else ()
    return (
        name,
        str(len(spent)),
        _short(total.hours(unit)),
        f"{total.seconds:.1f}",
        f"{max(one.cost.seconds for one in spent):.1f}",
        _count(total.tokens),
        f"{statistics.mean(rates):,.0f}" if rates else "",
        *bill,
    )


def _stages_table(spent: Sequence[Spent]) -> Table:
    unit = unit_of([_total(spent)])
    dearest = sorted(spent, key=lambda one: one.cost.hours(unit), reverse=True)[:STAGES]
    judged = any(one.cost.judge_tokens for one in spent)
    held = f"The {STAGES} dearest of {len(spent)}" if len(spent) > STAGES else f"All {len(spent)}"
    return Table(
        title="Every stage",
        columns=("stage", f"{unit}-hours", "seconds", "tokens", *(("judge tokens", "judge US$") if judged else ())),
        rows=[_stage_row(one, unit, judged=judged) for one in dearest],
        caption=f"{held}, the dearest first; all are in the CSV file beside this page.",
        folded=True,
    )


def _stage_row(spent: Spent, unit: str, *, judged: bool) -> tuple[str, ...]:
    cost = spent.cost
    bill = (_count(cost.judge_tokens), _dollars(cost) if cost.judge_tokens else "") if judged else ()
    return (_title(spent.stage), _short(cost.hours(unit)), f"{cost.seconds:.1f}", _count(cost.tokens), *bill)


def _title(stage: Stage) -> str:
    details = ", ".join(filter(None, [stage.label(), stage.fingerprint[:8]]))
    return f"{stage.name} ({details})"


def _total(spent: Iterable[Spent]) -> Cost:
    return sum((one.cost for one in spent), Cost())


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _dollars(cost: Cost) -> str:
    return "no price given" if cost.dollars is None else f"{cost.dollars:.2f}"


def as_csv(stages: Iterable[Stage], store: StageStore) -> str:
    """Return what every finished stage cost, a row each, in the order in which they are computed."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = ("seconds", "gpu_seconds", "cpu_seconds", "tokens", "judge_tokens", "dollars")
    writer.writerow(("stage", "label", "fingerprint", *names))
    for stage in stages:
        if store.is_complete(stage):
            cost = Cost.of([stage], store)
            writer.writerow((stage.name, stage.label(), stage.fingerprint, *(getattr(cost, name) for name in names)))
    return buffer.getvalue()
