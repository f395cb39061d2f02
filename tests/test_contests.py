"""The published contests, from files of the forms that their repositories have them in."""

import json
from pathlib import Path
from typing import Any

import pytest
from toy import INLINE, run

from cong.data import PROMPTS, RESPONSES, read_rows
from cong.evaluation import ArenaHardJudge
from cong.evaluation.contests import ARENA_HARD, ARENA_HARD_ANSWERS, BaselineAnswers, published_contests
from cong.graph.runner import StageFailed
from cong.graph.store import Store

QUESTIONS = {"9f": "What is\u2028a lease?", "0a": "Plan a\u0085trip.", "c3": "Prove it."}
ANSWERS = {"0a": "Go north.", "c3": "By induction.", "9f": "A promise.", "zz": "of no question here"}


def own_time(questions: dict[str, str], answers: dict[str, str]) -> tuple[list[Any], list[Any]]:
    """The form of v0.1's own time."""
    asked = [
        {"question_id": name, "category": "arena-hard-v0.1", "cluster": "x", "turns": [{"content": text}]}
        for name, text in questions.items()
    ]
    answered = [
        {"question_id": name, "answer_id": "i", "model_id": "gpt-4-0314",
         "choices": [{"index": 0, "turns": [{"content": text, "token_len": 3}]}], "tstamp": 1.5}
        for name, text in answers.items()
    ]  # fmt: skip
    return asked, answered


def since_v2(questions: dict[str, str], answers: dict[str, str]) -> tuple[list[Any], list[Any]]:
    """The form since v2.0."""
    asked = [{"uid": n, "category": "arena-hard-v0.1", "cluster": "x", "prompt": t} for n, t in questions.items()]
    answered = [
        {"uid": name, "ans_id": "i", "model": "gpt-4-0314", "tstamp": 1.5,
         "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": {"answer": text}}]}
        for name, text in answers.items()
    ]  # fmt: skip
    return asked, answered


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONG_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror" / ARENA_HARD


def write(mirror: Path, asked: list[Any], answered: list[Any]) -> None:
    assert ARENA_HARD_ANSWERS.questions is not None
    for file, rows in ((ARENA_HARD_ANSWERS.questions, asked), (ARENA_HARD_ANSWERS.answers, answered)):
        path = mirror / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def test_questions_and_baseline_of_a_benchmark_come_from_one_commit() -> None:
    stages = {contest.baseline for contest in published_contests()} | {ARENA_HARD_ANSWERS}
    for stage in stages:
        assert isinstance(stage, BaselineAnswers)
        assert stage.questions is None or stage.questions.commit == stage.answers.commit
        assert len(stage.answers.commit) == 40


@pytest.mark.parametrize("form", [own_time, since_v2])
def test_questions_meet_their_answers_in_files_of_either_form(store: Store, mirror: Path, form) -> None:
    write(mirror, *form(QUESTIONS, ANSWERS))
    run(store, ARENA_HARD_ANSWERS, resources=INLINE)
    out = store.directory(ARENA_HARD_ANSWERS)
    assert {row["prompt_id"]: row["prompt"] for row in read_rows(out / PROMPTS)} == QUESTIONS
    assert [(row["prompt_id"], row["response"]) for row in read_rows(out / RESPONSES)] == [
        (name, ANSWERS[name]) for name in QUESTIONS
    ]


def test_questions_of_one_form_meet_answers_of_the_other(store: Store, mirror: Path) -> None:
    write(mirror, own_time(QUESTIONS, {})[0], since_v2({}, ANSWERS)[1])
    run(store, ARENA_HARD_ANSWERS, resources=INLINE)
    assert len(read_rows(store.directory(ARENA_HARD_ANSWERS) / RESPONSES)) == len(QUESTIONS)


@pytest.mark.parametrize("form", [own_time, since_v2])
def test_a_question_without_an_answer_is_one_line_that_names_it(store: Store, mirror: Path, form) -> None:
    write(mirror, *form(QUESTIONS | {"new": "And now?"}, ANSWERS))
    with pytest.raises(StageFailed, match="has no answer to question new of data/arena-hard"):
        run(store, ARENA_HARD_ANSWERS, resources=INLINE)


def test_reading_v01_in_its_own_way_is_another_judge_and_v2_is_the_same_as_before() -> None:
    from cong.graph.fingerprint import canonical, fields_of

    new = ArenaHardJudge(version="v2.0")
    assert canonical(new) == {"class": "ArenaHardJudge", **fields_of(new)}
    assert canonical(ArenaHardJudge(version="v0.1"))["parsing"] == "0489bf3"
