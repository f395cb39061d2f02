"""Table 4: does weak-to-strong generalization carry over to math and code, beside chat?

Math is judged by the final answer, code by running it against tests in a sandbox; both rewards are 0 or 1.

    cong run experiments/domains.py --set seeds=0,1,2
    cong run experiments/domains.py --scale paper --profile h200x8 --set families=qwen,llama
    cong run experiments/domains.py --set domains=math
"""

from collections.abc import Iterator
from pathlib import Path

from cong import methods
from cong.experiment import Cell, Results
from cong.methods import CEILING, WEAK, WEAK_ALIGNED
from cong.paper import tables
from cong.paper.published import Published, load_published
from cong.paper.setups import Setups
from cong.report import Block, Entry, Table, ranked_table
from cong.report.recovery import PGR, RECOVERY, SHARES_NOTE, shares, unranked
from cong.report.statistics import difference, estimate, select, values_of

PAPER = Path(__file__).with_name("paper.toml")
METHODS = (WEAK, WEAK_ALIGNED, *tables.WEAK_TO_STRONG, CEILING)
ENDS = (WEAK, WEAK_ALIGNED, CEILING)
COLUMNS = {"math": "math", "gsm8k": "gsm8k", "code": "humaneval", "mbpp": "mbpp"}
"""Domain to the column of table 4 that stands beside it."""


def cells(
    scale,
    *,
    setups: Setups = Setups(families=("qwen",)),
    domains: tuple[str, ...] | None = None,
) -> list[Cell]:
    found = []
    for domain in domains or ("chat", *scale.domains):
        for setup in setups.of(scale if domain == "chat" else scale.in_domain(domain)):
            t = setup.transition
            axes = {"domain": domain, **setup.axes}
            found += [
                Cell(stage=methods.evaluate(t, model), axes={"method": method, **axes})
                for method, model in setup.models.items()
            ]
            found += tables.gap_cells(t, axes=axes, known=setup.models)
    return found


def report(results: Results) -> Iterator[Block]:
    published = load_published(PAPER)
    for family in values_of(results, "family"):
        found = select(results, family=family)
        domains = values_of(found, "domain")
        yield _rewards(family, found, domains)
        yield _shares(family, found, domains)
        if checked := [domain for domain in domains if domain != "chat"]:
            yield _beside_the_paper(family, found, checked, published.get(("domains", family)))
        yield _gains(family, found, domains)


def _rewards(family: str, results: Results, domains: list[str]) -> Table:
    rows = {}
    for method in METHODS:
        found = (select(results, method=method, domain=domain) for domain in domains)
        entries = [Entry.of(estimate(one, "reward")) for one in found]
        rows[method] = unranked(entries) if method in ENDS else entries
    return ranked_table(
        title=f"{family}: reward on held-out prompts, greedy",
        columns=dict.fromkeys(domains, "higher"),
        rows=rows,
        caption="Mean and 95 % interval. In math and code it is the share of right answers and of passed programs.",
    )


def _shares(family: str, results: Results, domains: list[str]) -> Table:
    rewards = {domain: tables.by_method(select(results, domain=domain), METHODS) for domain in domains}
    rows = {}
    for method in METHODS:
        entries = [entry for domain in domains for entry in shares(method, rewards[domain])]
        rows[method] = unranked(entries) if method in ENDS else entries
    return ranked_table(
        title=f"{family}: share of the gap that is recovered",
        columns={f"{domain}, {share}": "higher" for domain in domains for share in (PGR, RECOVERY)},
        rows=rows,
        caption=SHARES_NOTE,
    )


def _beside_the_paper(family: str, results: Results, domains: list[str], published: Published | None) -> Table:
    """Gains over Base: they can be compared with the paper's where the shares themselves cannot."""
    base = {domain: select(results, method="Base", domain=domain) for domain in domains}

    def gain(method: str, domain: str) -> Entry:
        found = difference(select(results, method=method, domain=domain), base[domain], "reward").times(100)
        text = f"{found.mean:+.1f} [{found.low:.1f}, {found.high:.1f}]"
        return Entry(text=text, value=found.mean, paper=_printed_gain(published, method, domain))

    return ranked_table(
        title=f"{family}: gain over Base, in points",
        columns=dict.fromkeys(domains, "higher"),
        rows={method: [gain(method, domain) for domain in domains] for method in tables.WEAK_TO_STRONG[1:]},
        caption="Mean and 95 % interval, paired by prompt."
        + (f" The paper: {published.source}; code stands beside its humaneval." if published else ""),
    )


def _printed_gain(published: Published | None, method: str, domain: str) -> str:
    if published is None or domain not in COLUMNS:
        return ""
    column = COLUMNS[domain]
    return f"{published.value(method, column) - published.value('Base', column):+.2f}"


def _gains(family: str, results: Results, domains: list[str]) -> Table:
    pairs = (("ConG-S", "Base"), ("ConG-S", "Weak SFT (post)"), ("ConG-S", "Weak (aligned)"), ("ConG", "ConG-S"))
    rows = [
        (
            f"{better} - {worse}",
            *(
                str(
                    difference(
                        select(results, method=better, domain=domain),
                        select(results, method=worse, domain=domain),
                        "reward",
                    )
                )
                for domain in domains
            ),
        )
        for better, worse in pairs
    ]
    return Table(title=f"{family}: differences, paired by prompt", columns=("difference", *domains), rows=rows)
