"""Prompts with references from public math and code benchmarks, at pinned commits of the hub.

    BenchmarkPrompts(benchmark=GSM8K, split="test")     # prompt_id, prompt, reference: the final answer
    BenchmarkPrompts(benchmark=HUMANEVAL, split="test") # reference: the tests that a program must pass

A benchmark is a value, so another one, or another commit, needs no change here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from cong.data.answers import final_answer
from cong.data.prompts import hub_records
from cong.data.rows import PROMPTS, REFERENCE, Row, check_prompts, write_rows
from cong.data.sizes import published_rows
from cong.graph.resources import Resources
from cong.graph.stage import Context, Stage
from cong.graph.work import LITTLE, Work
from cong.models import check_hub

Format = Literal["gsm8k", "math", "humaneval", "mbpp"]

SOLVE = "\n\nSolve this step by step and put the final answer behind '####'."
PROGRAM = "\n\nAnswer with one Python code block that holds the whole program, imports included."


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A dataset on the hub whose rows have the form of a known benchmark; `configs` are read one after the other."""

    form: Format
    repo: str
    revision: str
    configs: tuple[str, ...] = ()


GSM8K = Benchmark(
    form="gsm8k", repo="openai/gsm8k", revision="e53f048856ff4f594e959d75785d2c2d37b678ee", configs=("main",)
)
MATH = Benchmark(
    form="math",
    repo="EleutherAI/hendrycks_math",
    revision="21a5633873b6a120296cce3e2df9d5550074f4a3",
    configs=(
        "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
        "precalculus",
    ),
)  # fmt: skip
HUMANEVAL = Benchmark(
    form="humaneval", repo="openai/openai_humaneval", revision="7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544"
)
MBPP = Benchmark(
    form="mbpp",
    repo="google-research-datasets/mbpp",
    revision="4bb6404fdc6cacfda99d4ac4205087b89d32030c",
    configs=("full",),
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkPrompts(Stage):
    """The prompts of a split of a benchmark, or the first `count` of them."""

    benchmark: Benchmark
    split: str
    count: int | None = None

    def label(self) -> str:
        return f"{self.benchmark.repo.split('/')[-1]},{self.split}" + (f",n={self.count}" if self.count else "")

    def check(self) -> None:
        check_hub(self.benchmark.repo, self.benchmark.revision, kind="dataset")

    def work(self, resources: Resources) -> Work:
        return LITTLE

    def row_count(self) -> int:
        return published_rows(self.benchmark.repo, self.split, count=self.count)

    def run(self, ctx: Context) -> None:
        rows = benchmark_rows(self.benchmark.form, _load(self.benchmark, self.split))[: self.count]
        check_prompts(rows, source=self.title)
        write_rows(ctx.out / PROMPTS, rows)
        ctx.summary(prompts=len(rows))


def benchmark_rows(form: Format, rows: Iterable[Row]) -> list[Row]:
    """Return prompts with references; raise `ValueError` for a row without one."""
    read = _READERS[form]
    found = []
    for number, row in enumerate(rows):
        name, prompt, reference = read(row)
        if not reference:
            raise ValueError(f"row {number} of a {form} dataset has no answer or test")
        found.append({"prompt_id": f"{form}-{name or f'{number:06d}'}", "prompt": prompt, REFERENCE: reference})
    return found


def _load(benchmark: Benchmark, split: str) -> Iterable[Row]:
    for config in benchmark.configs or (None,):
        yield from hub_records(benchmark.repo, benchmark.revision, split, config=config)


def _gsm8k(row: Row) -> tuple[str, str, str | None]:
    return "", row["question"] + SOLVE, final_answer(row["answer"])


def _math(row: Row) -> tuple[str, str, str | None]:
    return "", row["problem"] + SOLVE, row.get("answer") or final_answer(row["solution"])


def _humaneval(row: Row) -> tuple[str, str, str | None]:
    prompt = f"Complete this function:\n\n```python\n{row['prompt'].rstrip()}\n```{PROGRAM}"
    return row["task_id"].replace("/", "-"), prompt, f"{row['test'].strip()}\n\ncheck({row['entry_point']})"


def _mbpp(row: Row) -> tuple[str, str, str | None]:
    tests = "\n".join(row["test_list"])
    text = row.get("text") or row["prompt"]
    setup = f"{row['test_setup_code'].strip()}\n" if row.get("test_setup_code") else ""
    return str(row["task_id"]), f"{text}\n\nIt must pass:\n\n{tests}{PROGRAM}", f"{setup}{tests}" if tests else None


_READERS: dict[Format, Callable[[Row], tuple[str, str, str | None]]] = {
    "gsm8k": _gsm8k,
    "math": _math,
    "humaneval": _humaneval,
    "mbpp": _mbpp,
}
"""From a row to the end of its id ("" counts), prompt and reference."""
