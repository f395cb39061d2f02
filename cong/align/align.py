"""The whole method on models of one's own

The weak model is aligned unless it is already; its contrastive responses fine-tune the strong model (ConG-S), which DPO
against its own samples then refines (ConG). All are evaluated on prompts that were held out.
"""

from collections.abc import Iterator

from cong import methods
from cong.align.request import FAMILY, STRONG, WEAK
from cong.experiment import Cell, Results
from cong.paper import tables
from cong.report import Block, Entry, Table, Text, ranked_table
from cong.report.statistics import difference, estimate, select, values_of

CONG = "ConG"
COLUMNS = {"reward": "higher", "win_rate": "higher", "fluency": None, "tokens": None}


def cells(scale, *, beta: float = 0.5, seed: int = 0) -> list[Cell]:
    t = methods.transition(FAMILY, weak=WEAK, strong=STRONG, scale=scale, seed=seed)
    alpha = scale.alpha[FAMILY]
    models = {
        "weak": t.weak,
        "weak, aligned": t.weak_aligned,
        "strong": methods.base(t),
        "ConG-S": methods.cong_s(t, alpha=alpha),
        CONG: methods.cong(t, alpha=alpha, beta=beta),
    }
    settings = {"ConG-S": {"alpha": alpha}, CONG: {"alpha": alpha, "beta": beta}}
    found = [
        Cell(stage=_evaluate(t, name, model), axes={"method": name, **settings.get(name, {}), "seed": seed})
        for name, model in models.items()
        if name != "weak" or t.weak != t.strong
    ]
    stage = methods.pair_agreement(t, alpha=alpha, explicit=True)
    return [*found, Cell(stage=stage, axes={"agreement": "reward", "seed": seed})]


def _evaluate(t: methods.Transition, name: str, model):
    # Fluency is measured by what the model was before: another tokenizer's words are no measure of it.
    whose = t.self_aligned if name.startswith("weak") else t
    return methods.evaluate(whose, model, fluency=True)


def report(results: Results) -> Iterator[Block]:
    names = values_of(results, "method")
    yield ranked_table(
        title="Held-out prompts, greedy",
        columns={"reward": "higher", "wins against the model as it was": "higher", "fluency": None, "tokens": None},
        rows={
            name: [Entry.of(estimate(select(results, method=name), measure)) for measure in COLUMNS] for name in names
        },
        caption=tables.interval_note(select(results, method=names[0]))
        + " Fluency: log-probability per token under the model as it was, in nats. Where reward rises and fluency "
        "falls far, look at the responses: a reward can be hacked.",
    )
    yield _differences(results)
    yield _agreement(results)


def _differences(results: Results) -> Table:
    pairs = (("ConG-S", "strong"), (CONG, "ConG-S"), (CONG, "weak, aligned"))
    rows = [
        (f"{one} - {other}", str(difference(select(results, method=one), select(results, method=other), "reward")))
        for one, other in pairs
    ]
    return Table(
        title="Differences of reward, paired by prompt",
        columns=("difference", "reward"),
        rows=rows,
        caption="An interval that holds 0 shows no difference.",
    )


def _agreement(results: Results) -> Text:
    share = select(results, agreement="reward")[0].values["chosen_better"]
    text = f"In {100 * share:.0f} % of the differing pairs it is, by the reward (ties count one half)."
    low = (
        " Below one half, Stage II is trained away from the better response: use ConG-S instead." if share < 0.5 else ""
    )
    return Text(
        title="Is the chosen response of Stage II better than the rejected one?", text=text + low, warning=bool(low)
    )
