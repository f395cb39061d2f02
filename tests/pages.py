"""Results with known rewards, and a report of them that holds everything a page can hold."""

from pathlib import Path

from cong.data import write_rows
from cong.data.prompts import LocalFile, PromptFile
from cong.evaluation import EVALUATION, Evaluate
from cong.experiment import Cell, Result, Results
from cong.graph.store import Store
from cong.report import Entry, Figure, Table, Text, ranked_table, write_report
from cong.report.browser import browse

METHODS = ("Base", "ConG-S", "ConG")
SEEDS = (0, 1)
PROMPTS = 25
HOSTILE = """</script><script>document.title = "taken"</script><img src="http://example.com/x.png" onerror="taken()">
{{ 7 * 7 }} <!-- ]]> \\u003c & "quoted" 'too' \u2028 ```fence``` | ![x](http://example.com/y.png)"""


def prompt(seed: int, number: int) -> str:
    return f"seed {seed}: question {number:02d} of the {'fruits' if number % 5 == 0 else 'towns'}"


def reward(method: str, number: int) -> float:
    """Base always has 1; ConG wins most on question 07, by 2.5, and loses most on question 21, by 3."""
    if method == "Base":
        return 1.0
    if method == "ConG-S":
        return number / 100
    return {7: 3.5, 21: -2.0}.get(number, 1 + number / 100)


def results(directory: Path) -> Results:
    """Return a result per method and seed."""
    found = []
    for method in METHODS:
        for seed in SEEDS:
            path = directory / f"{method}-{seed}"
            path.mkdir()
            write_rows(path / EVALUATION, [_row(method, seed, number) for number in range(PROMPTS)])
            axes: dict = {"method": method, "seed": seed, "alpha": 0.4} if method != "Base" else {"method": "Base"}
            cell = Cell(
                stage=Evaluate(scored=PromptFile(file=LocalFile(path=__file__))),
                axes={**axes, "seed": seed, "weak": "3B"},
            )
            found.append(Result(cell=cell, values={}, directory=path, store=Store(path)))
    return found


def _row(method: str, seed: int, number: int) -> dict:
    text = HOSTILE if number == 3 else f"{method} says {number}"
    return {
        "prompt_id": f"p{number}",
        "prompt": prompt(seed, number),
        "response": text,
        "reward": reward(method, number),
    }


def write_page(directory: Path) -> Path:
    """Write the report and return its page."""
    browser = browse(results(directory))
    assert browser is not None
    row = [Entry(text=f"{n}.00 [0.00, 9.00]", value=float(n), paper=f"{n}.5±0.3") for n in range(12)]
    blocks = [
        Text(title="Note", text="W" * 300, warning=True),
        ranked_table(
            title="A wide table",
            columns={f"measure {n}": "higher" for n in range(12)},
            rows={"Weak SFT (post)": row, "ConG": list(reversed(row))},
            caption="Mean and interval.",
        ),
        Table(title="Folded", columns=("stage", "seconds"), rows=[("SFT", "1")], folded=True),
        Figure(title="Curve", name="curve", draw=lambda axes: axes.plot([0, 1], [1, 2])),
        browser,
    ]
    return write_report(
        directory / "report", name="page", title="A page", description="What it is.", blocks=blocks
    ).page
