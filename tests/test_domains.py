"""Math and code: their synthetic worlds, their benchmarks, and how responses are judged, from prompt to reward."""

import dataclasses
import random
from pathlib import Path

import pytest
from toy import INLINE

from cong.data import PROMPTS, RESPONSES, SCORES, read_rows, write_rows
from cong.data.answers import final_answer, same_answer
from cong.data.benchmarks import GSM8K, HUMANEVAL, BenchmarkPrompts, benchmark_rows
from cong.errors import UserError
from cong.generation import Generate
from cong.graph.plan import make_plan
from cong.graph.runner import Runner
from cong.graph.stage import Context, Stage
from cong.graph.store import Store
from cong.models import LocalModel
from cong.sandbox import Limits, run_tests
from cong.scales import scale
from cong.scoring import AnswerMatch, Score, UnitTests
from cong.scoring.scorers import program_of
from cong.synthetic.code_world import CodeWorld
from cong.synthetic.domain import Document
from cong.synthetic.math_world import GOOD_OPENER, MathWorld
from cong.synthetic.stages import SyntheticPrompts
from cong.synthetic.world import World, make_documents, make_prompts

LIMITS = Limits()
WORLDS = [World(), MathWorld(), CodeWorld()]


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: type(world).__name__)
def test_a_world_is_the_same_everywhere_and_its_splits_share_no_prompt(world):
    again = dataclasses.replace(world)
    assert make_documents(world, count=20, seed=1) == make_documents(again, count=20, seed=1)
    assert make_documents(world, count=20, seed=1) != make_documents(
        dataclasses.replace(world, seed=5), count=20, seed=1
    )
    train, heldout = (make_prompts(world, split=split, count=200, seed=0) for split in ("train", "heldout"))
    assert len({row["prompt_id"] for row in train} | {row["prompt_id"] for row in heldout}) == 400
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in heldout}


def right(world, document: Document) -> bool:
    if isinstance(world, MathWorld):
        return same_answer(final_answer(document.response), world.reference(document.prompt))
    return run_tests(document.response, world.reference(document.prompt), limits=LIMITS).passed


def test_careful_authors_are_right_more_often_and_the_corpus_is_wrong_in_part():
    world = MathWorld()
    documents = make_documents(world, count=2000, seed=0)
    shares = [
        sum(right(world, d) for d in group) / len(group)
        for group in (
            [d for d in documents if d.response.startswith(GOOD_OPENER)],
            [d for d in documents if not d.response.startswith(GOOD_OPENER)],
        )
    ]
    assert 0.05 < shares[1] + 0.1 < shares[0] < 0.95


def test_the_tests_of_a_program_pass_for_right_code_and_for_no_other():
    world = CodeWorld()
    documents = make_documents(world, count=24, seed=0)
    outcomes = {document: right(world, document) for document in documents}
    assert 0 < sum(outcomes.values()) < len(outcomes)
    for document, passed in outcomes.items():
        space: dict = {}
        exec(document.response, space)  # of this repository's own making
        if passed:
            assert space["f"](4) == world.result(document.prompt, 4)


def test_a_wrong_first_step_is_carried_on():
    world = MathWorld()
    for document in make_documents(world, count=200, seed=3):
        middle = document.response.split("=")[1].split(";")[0].strip()
        assert document.response.split(";")[1].split()[0] == middle


@pytest.mark.parametrize(("world", "field"), [(MathWorld, {"largest": 1}), (CodeWorld, {"largest": 0})])
def test_a_world_that_is_too_small_is_refused(world, field):
    with pytest.raises(ValueError, match="largest"):
        world(**field)


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("def f(x): return x", "def f(x): return x"),
        ("Here:\n```python\ndef f(x):\n    return x\n```\nDone.", "def f(x):\n    return x\n"),
        ("```\na = 1\n```\nand\n```py\nb = 2\n```", "a = 1\n\nb = 2\n"),
        ("```python\ncut = off", "cut = off"),
    ],
)
def test_the_code_of_a_response_is_its_fenced_blocks(response, program):
    assert program_of(response) == program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written(Stage):
    """Responses that the test writes."""

    rows: tuple[tuple[str, str], ...]

    def run(self, ctx: Context) -> None:
        write_rows(
            ctx.out / RESPONSES,
            [
                {
                    "row_id": f"p{number}#0",
                    "prompt_id": f"p{number}",
                    "prompt": "?",
                    "sample": 0,
                    "response": response,
                    "num_tokens": 3,
                    "finish_reason": "stop",
                    "error": None,
                    "reference": reference,
                }
                for number, (response, reference) in enumerate(self.rows)
            ],
        )


def rewards(store: Store, judge, *rows: tuple[str, str]) -> list[float]:
    score = Score(responses=Written(rows=rows), judge=judge)
    Runner(store=store, resources=INLINE).run(make_plan({"a": score}, store))
    return [row["reward"] for row in read_rows(store.directory(score) / SCORES)]


def test_answers_are_judged_by_the_reference_of_their_own_row(store):
    assert rewards(store, AnswerMatch(), ("#### 3", "3"), ("#### 3", "4"), ("none", "5"), ("is 1,000", "1000")) == [
        1,
        0,
        0,
        1,
    ]


def test_programs_are_judged_by_the_tests_of_their_own_row_and_hostile_ones_fail(store):
    tests = "assert f(2) == 4"
    found = rewards(
        store,
        UnitTests(cpu_seconds=1),
        ("def f(x): return x + x", tests),
        ("def f(x): return x + x", "assert f(2) == 5"),
        ("```python\ndef f(x):\n    return 2 * x\n```", tests),
        ("import os\nos._exit(0)", tests),
        ("while True: pass", tests),
        ("def f(x): return x + x", tests),
    )
    assert found == [1, 0, 1, 0, 0, 1]


def test_a_prompt_without_a_reference_cannot_be_judged(store):
    from cong.graph.runner import StageFailed

    with pytest.raises(StageFailed, match="p0#0: the prompt has no reference"):
        rewards(store, AnswerMatch(), ("#### 3", ""))


def test_references_ride_along_with_the_prompts_from_world_to_reward(store, small_run):
    """The chat model knows no sums; what counts here is that every row is checked against its own answer."""
    world = MathWorld()
    model = LocalModel(path=str(next(small_run.store.root.glob("Pretrain/*/model"))))
    prompts = SyntheticPrompts(world=world, split="heldout", count=6)
    score = Score(responses=Generate(model=model, prompts=prompts, max_new_tokens=4), judge=AnswerMatch())
    Runner(store=store, resources=INLINE).run(make_plan({"a": score}, store))
    asked = {row["prompt_id"]: row for row in read_rows(store.directory(prompts) / PROMPTS)}
    for row in read_rows(store.directory(score.responses) / RESPONSES):
        assert row["reference"] == asked[row["prompt_id"]]["reference"] == world.reference(row["prompt"])
    assert {row["reward"] for row in read_rows(store.directory(score) / SCORES)} <= {0.0, 1.0}


def test_every_domain_has_its_own_world_prompts_and_judge():
    tiny = scale("tiny")
    assert tiny.in_domain("chat").prompts(0).fingerprint == tiny.prompts(0).fingerprint
    judges = [str(tiny.in_domain(domain).reward(0)) for domain in ("chat", "math", "code")]
    assert judges == ["exact", "answer", "tests"]
    models = {tiny.in_domain(domain).model("qwen", "3B", 0).fingerprint for domain in ("chat", "math", "code")}  # pyright: ignore
    assert len(models) == 3
    for name in ("tiny", "small", "paper"):
        with pytest.raises(UserError, match="unknown domain 'poems': known are chat, "):
            scale(name).in_domain("poems")


BENCHMARK_ROWS = {
    "gsm8k": {"question": "Ann has 3 hens. She buys 4. How many?", "answer": "3+4=<<3+4=7>>7\n#### 7"},
    "math": {"problem": "What is $1/2 + 1/2$?", "solution": r"It is $\boxed{1}$.", "level": "Level 1"},
    "humaneval": {
        "task_id": "Own/0",
        "prompt": 'def double(x: int) -> int:\n    """Return twice x."""\n',
        "test": "def check(candidate):\n    assert candidate(2) == 4\n",
        "entry_point": "double",
        "canonical_solution": "    return 2 * x\n",
    },
    "mbpp": {
        "task_id": 7,
        "text": "Write a function to double a number.",
        "test_list": ["assert double(2) == 4", "assert double(0) == 0"],
        "test_setup_code": "",
    },
}


@pytest.mark.parametrize(("form", "reference"), [("gsm8k", "7"), ("math", "1")])
def test_a_math_benchmark_gives_problem_and_answer(form, reference):
    (row,) = benchmark_rows(form, [BENCHMARK_ROWS[form]])
    assert row["reference"] == reference
    assert row["prompt"].startswith(BENCHMARK_ROWS[form].get("question") or BENCHMARK_ROWS[form]["problem"])


@pytest.mark.parametrize("form", ["humaneval", "mbpp"])
def test_a_code_benchmark_gives_tests_that_right_code_passes_and_wrong_code_does_not(form):
    (row,) = benchmark_rows(form, [BENCHMARK_ROWS[form]])
    for program, passed in (("def double(x): return 2 * x", True), ("def double(x): return x", False)):
        assert run_tests(program, row["reference"], limits=LIMITS).passed is passed


def test_a_benchmark_row_without_an_answer_is_named():
    with pytest.raises(ValueError, match="row 1 of a gsm8k dataset has no answer"):
        benchmark_rows("gsm8k", [BENCHMARK_ROWS["gsm8k"], {"question": "?", "answer": "no idea"}])


def test_a_benchmark_is_read_from_a_copy_of_its_repository(tmp_path, monkeypatch):
    directory = tmp_path / "mirror" / GSM8K.repo / "main"
    directory.mkdir(parents=True)
    write_rows(directory / "test-00000-of-00001.parquet", [BENCHMARK_ROWS["gsm8k"]] * 3)
    (directory.parent / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n    path: main/test-*\n---\n"
    )
    monkeypatch.setenv("CONG_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    stage = BenchmarkPrompts(benchmark=GSM8K, split="test", count=2)
    stage.check()
    ctx = Context(out=tmp_path, root=tmp_path, resources=INLINE, locate=lambda _: Path("nowhere"))
    stage.run(ctx)
    assert [row["reference"] for row in read_rows(tmp_path / PROMPTS)] == ["7", "7"]
    assert stage.label() == "gsm8k,test,n=2"
    assert BenchmarkPrompts(benchmark=HUMANEVAL, split="test").fingerprint != stage.fingerprint


def test_authors_of_any_quality_can_be_drawn():
    from cong.synthetic.domain import is_right

    rng = random.Random(0)
    for quality, expected in ((0.0, 0.0), (1.0, 1.0)):
        assert is_right(quality=quality, sharpness=1.5, bias=0.0, rng=rng) == expected
