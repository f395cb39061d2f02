"""Downstream tasks: the figures are those of lm_eval, and the world's own questions have one right answer each."""

import json
from pathlib import Path
from typing import Any

import pytest
from small import small_model
from toy import INLINE

from cong.errors import UserError
from cong.evaluation import WORLD_TASKS, Downstream, Task, TaskFolder
from cong.graph.plan import make_plan
from cong.graph.runner import Runner, StageFailed
from cong.graph.stage import Stage
from cong.graph.store import Store
from cong.models import LocalModel
from cong.run.job import Job
from cong.synthetic.reward import BEST, exact_reward
from cong.synthetic.tasks import CHOICES, GENERATED, WorldTasks
from cong.synthetic.world import World

WORLD = World(categories=4, attributes=3)
CHOICE_TASK = """
task: colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {questions}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
WRITING_TASK = """
task: echoes
dataset_path: json
dataset_kwargs: {{data_files: {{test: {questions}}}}}
test_split: test
output_type: generate_until
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, do_sample: false}}
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two tasks as a user of lm_eval keeps them."""
    made = tmp_path / "tasks"
    made.mkdir()
    words = ("old", "heavy", "bright", "sweet")
    rows = [
        {"prompt": f"name two {words[n % 4]} birds", "choices": [*words[: 2 + n % 3]], "answer": n % 2}
        for n in range(24)
    ]
    questions = made / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made / "colours.yaml").write_text(CHOICE_TASK.format(questions=questions))
    (made / "echoes.yaml").write_text(WRITING_TASK.format(questions=questions))
    return made


@pytest.fixture(scope="module")
def checkpoint(small_run: Job) -> LocalModel:
    """A tiny pretrained model."""
    return LocalModel(path=str(small_run.store.directory(small_model("qwen", "1.5B", 0)) / "model"))


def results(store: Store, stage: Stage) -> dict:
    Runner(store=store, resources=INLINE).run(make_plan({"a": stage}, store))
    return store.record(stage)["results"]


def test_the_figures_are_those_of_a_direct_call_of_lm_eval(checkpoint: LocalModel, folder: Path, store: Store) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    tasks = (Task(name="colours"), Task(name="echoes", metric="exact_match"))
    ours = results(store, Downstream(model=checkpoint, tasks=tasks, source=TaskFolder(path=str(folder))))
    simple_evaluate: Any = lm_eval.simple_evaluate
    theirs = simple_evaluate(
        model="hf",
        model_args={"pretrained": checkpoint.path, "dtype": "float32"},
        device="cpu",
        tasks=["colours", "echoes"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
    )["results"]
    assert ours["colours"] == theirs["colours"]["acc,none"]
    assert ours["colours_se"] == theirs["colours"]["acc_stderr,none"]
    assert ours["echoes"] == theirs["echoes"]["exact_match,none"]
    assert ours["questions"] == 48
    assert 0 < ours["colours"] < 1


def test_the_worlds_tasks_run_on_a_tiny_checkpoint(checkpoint: LocalModel, store: Store) -> None:
    questions = WorldTasks(world=WORLD, count=6)
    found = results(store, Downstream(model=checkpoint, tasks=WORLD_TASKS, source=questions, chat=True))
    assert {task.name for task in WORLD_TASKS} <= found.keys()
    assert found["average"] == pytest.approx(sum(found[task.name] for task in WORLD_TASKS) / len(WORLD_TASKS))


@pytest.mark.parametrize("task", CHOICES)
def test_exactly_one_choice_of_a_question_is_right(task: str, store: Store) -> None:
    questions = WorldTasks(world=WORLD, count=40)
    results(store, questions)
    lines = (store.directory(questions) / f"{task}.jsonl").read_text().splitlines()
    answers = set()
    for row in map(json.loads, lines):
        rewards = [exact_reward(WORLD, prompt=row["prompt"], response=text, finished=True) for text in row["choices"]]
        assert [position for position, reward in enumerate(rewards) if reward == BEST] == [row["answer"]]
        answers.add(row["answer"])
    assert len(lines) == 40
    assert answers == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("response", "counts"),
    [("sure a b ; c d done", True), ("hmm a b ; c d", True), ("a b ; c d", True), ("sure a b ; c done", False),
     ("sure a b c d done", False)],
)  # fmt: skip
def test_an_answer_counts_by_its_items_and_not_by_its_manners(response: str, counts: bool) -> None:
    import re

    (described,) = WorldTasks(world=WORLD, count=1).configs(Path())[GENERATED]["filter_list"]
    found = re.findall(described["filter"][0]["regex_pattern"], response)
    assert (found[:1] == ["a b ; c d"]) == counts


def test_a_changed_question_is_another_task_folder(folder: Path) -> None:
    before = TaskFolder(path=str(folder)).identity()
    (folder / "questions.jsonl").write_text("{}\n")
    assert TaskFolder(path=str(folder)).identity() != before


def test_an_unknown_task_is_named_before_anything_runs(checkpoint: LocalModel, folder: Path) -> None:
    stage = Downstream(model=checkpoint, tasks=(Task(name="colors"),), source=TaskFolder(path=str(folder)))
    with pytest.raises(UserError, match="has no task colors"):
        stage.check()


def test_an_unknown_figure_is_named_with_those_that_there_are(
    checkpoint: LocalModel, folder: Path, store: Store
) -> None:
    task = Task(name="colours", metric="f1")
    with pytest.raises(StageFailed, match="has no figure f1,none: it has acc,none"):
        results(store, Downstream(model=checkpoint, tasks=(task,), source=TaskFolder(path=str(folder))))


def test_a_missing_folder_of_tasks_is_named() -> None:
    with pytest.raises(UserError, match="no folder"):
        TaskFolder(path="/nowhere").identity()
