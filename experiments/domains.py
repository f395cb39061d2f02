"""Chat, math and code: does weak-to-strong generalization carry over to tasks with right and wrong answers?

Math is judged by the final answer, code by running it against tests in a sandbox; both rewards are 0 or 1.

    cong run experiments/domains.py --set seeds=0,1,2
    cong run experiments/domains.py --scale paper --profile h200x8 --set domains=gsm8k,math,code,mbpp
"""

from collections.abc import Iterator

from cong import methods
from cong.experiment import Cell, Results
from cong.report import Block, Responses, Table
from cong.report.examples import side_by_side
from cong.report.statistics import best_row, difference, estimate, select, values_of

METHODS = ("Weak", "Weak (aligned)", "Base", "Weak SFT (pre)", "Weak SFT (post)", "ConG-S", "ConG")


def cells(
    scale,
    *,
    domains: tuple[str, ...] = ("chat", "math", "code"),
    seeds: tuple[int, ...] = (0,),
    family: str = "qwen",
    alpha: float | None = None,
    beta: float = 0.5,
) -> list[Cell]:
    alpha = scale.alpha[family] if alpha is None else alpha
    weak, strong = scale.sizes[family]
    found = []
    for domain in domains:
        for seed in seeds:
            t = methods.transition(family, weak=weak, strong=strong, scale=scale.in_domain(domain), seed=seed)
            models = {
                "Weak": t.weak,
                "Weak (aligned)": t.weak_aligned,
                "Base": methods.base(t),
                "Weak SFT (pre)": methods.weak_sft_pre(t),
                "Weak SFT (post)": methods.weak_sft_post(t),
                "ConG-S": methods.cong_s(t, alpha=alpha),
                "ConG": methods.cong(t, alpha=alpha, beta=beta),
            }
            axes = {"domain": domain, "seed": seed, "alpha": alpha, "beta": beta}
            found += [
                Cell(stage=methods.evaluate(t, model), axes={"method": method, **axes})
                for method, model in models.items()
            ]
    return found


def report(results: Results) -> Iterator[Block]:
    domains = values_of(results, "domain")
    columns = [
        [estimate(select(results, method=method, domain=domain), "reward") for method in METHODS] for domain in domains
    ]
    yield Table(
        title="Reward on held-out prompts, greedy",
        columns=("method", *domains),
        rows=[(method, *(str(column[row]) for column in columns)) for row, method in enumerate(METHODS)],
        best=(None, *(best_row(column) for column in columns)),
        caption="Mean and 95 % interval. In math and code it is the share of right answers and of passed programs.",
    )
    yield _gains(results, domains)
    yield from (_examples(results, domain) for domain in domains if domain != "chat")


def _gains(results: Results, domains: list[str]) -> Table:
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
    return Table(title="Differences, paired by prompt", columns=("difference", *domains), rows=rows)


def _examples(results: Results, domain: str) -> Responses:
    first = values_of(results, "seed")[0]
    found = {method: select(results, method=method, domain=domain, seed=first)[0] for method in METHODS}
    return side_by_side(found, count=3, title=f"Three prompts, {domain}", caption="Reward in brackets.")
