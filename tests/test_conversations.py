"""Prompts and preferences in the forms that the field's files have; system turns and earlier turns stay."""

import json

import pytest
import spoken
from toy import run

from cong.data import PAIRS, PROMPTS, RESPONSES, read_rows, write_rows
from cong.data.conversations import conversation, prompt_row, read_conversation, read_preference
from cong.data.preferences import PreferenceFile
from cong.data.prompts import LocalFile, PromptFile
from cong.errors import UserError
from cong.generation import Generate
from cong.models import LocalModel
from cong.scoring import PreferencePairs

SYSTEM, FIRST = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}
ANSWER, SECOND = {"role": "assistant", "content": "4"}, {"role": "user", "content": "And 3+3?"}
TALK = [SYSTEM, FIRST, ANSWER, SECOND]


def shared_gpt(turns):
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[turn["role"]], "value": turn["content"]} for turn in turns]


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"prompt": "2+2?"}, [FIRST]),
        ({"prompt": [FIRST]}, [FIRST]),
        ({"messages": TALK}, TALK),
        ({"messages": [FIRST, ANSWER]}, [FIRST]),
        ({"conversations": shared_gpt([*TALK, ANSWER])}, TALK),
        ({"conversation": [FIRST, ANSWER, SECOND], "system": "Be brief."}, TALK),
        ({"question": "2+2?", "answer": "4"}, [FIRST]),
        ({"instruction": "Add.", "input": "2+2", "output": "4"}, [{"role": "user", "content": "Add.\n\n2+2"}]),
        ({"instruction": "2+2?", "input": ""}, [FIRST]),
        ({"prompt": "2+2?", "messages": [FIRST, ANSWER], "chosen": [FIRST, ANSWER]}, [FIRST]),
        ({"prompt": "And 3+3?", "messages": json.dumps(TALK)}, TALK),
    ],
)
def test_the_usual_forms_of_a_prompt_are_read(row, turns):
    assert read_conversation(row) == turns
    assert conversation(prompt_row(turns)) == turns


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 3}, "has no 'prompt', nor any other of prompt, instruction"),
        ({"prompt": " "}, "has no text in its prompt"),
        ({"messages": [ANSWER]}, "has no turn of a user before the answer"),
        ({"messages": [FIRST, "4"]}, "has a turn without 'role' and 'content'"),
        ({"messages": [{"role": "user"}]}, "has a turn without 'role' and 'content'"),
        ({"conversations": [{"from": "human", "value": "half \ud83d"}]}, "holds half of a character"),
    ],
)
def test_a_row_without_a_prompt_says_what_is_missing(row, message):
    with pytest.raises(ValueError, match=message):
        read_conversation(row)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
        {"prompt": [FIRST], "chosen": [ANSWER], "rejected": [ANSWER | {"content": "5"}]},
        {"chosen": [FIRST, ANSWER], "rejected": [FIRST, ANSWER | {"content": "5"}]},
        {"question": "2+2?", "chosen": shared_gpt([FIRST, ANSWER]),
         "rejected": shared_gpt([FIRST, ANSWER | {"content": "5"}])},
    ],
)  # fmt: skip
def test_the_usual_forms_of_a_preference_are_read(row):
    assert read_preference(row) == ([FIRST], "4", "5")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "2+2?", "chosen": "4"}, "has no 'chosen' and 'rejected', both texts or both conversations"),
        ({"prompt": "2+2?", "chosen": "4", "rejected": ""}, "has no text in 'rejected'"),
        ({"chosen": [FIRST, ANSWER], "rejected": [SECOND, ANSWER]}, "they answer two prompts"),
        ({"chosen": [FIRST], "rejected": [FIRST]}, "does not end with a turn of the assistant"),
    ],
)
def test_a_row_without_a_preference_says_what_is_missing(row, message):
    with pytest.raises(ValueError, match=message):
        read_preference(row)


def written(path, rows):
    if path.suffix == ".parquet":
        import pandas

        pandas.DataFrame(rows).to_parquet(path)
    else:
        lines = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
        path.write_text(lines)
    return LocalFile(path=str(path))


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_prompts_come_from_every_kind_of_file_each_once(tmp_path, store, ending):
    rows = [{"messages": [FIRST]}, {"messages": TALK}, {"messages": [FIRST]}]
    stage = PromptFile(file=written(tmp_path / f"prompts{ending}", rows))
    run(store, stage)
    prompts = read_rows(store.directory(stage) / PROMPTS)
    assert [conversation(row) for row in prompts] == [[FIRST], TALK]
    assert len({row["prompt_id"] for row in prompts}) == 2


def test_a_reference_stays_with_its_prompt(tmp_path, store):
    stage = PromptFile(file=written(tmp_path / "prompts.jsonl", [{"question": "2+2?", "reference": "4"}]))
    run(store, stage)
    assert read_rows(store.directory(stage) / PROMPTS)[0]["reference"] == "4"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.json", "{}", "is no list of JSON objects"),
        ("p.json", "[1", "is no JSON"),
        ("p.parquet", "no", "is no Parquet file"),
        ("p.jsonl", '{"prompt": "x"}\n{"prompt_id": "a"}\n', "line 2 has no 'prompt'"),
        ("p.json", '[{"prompt": "x"}, {"chosen": "a"}]', "entry 2 has no 'prompt'"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        PromptFile(file=LocalFile(path=str(tmp_path / name))).check()


def test_given_preferences_are_pairs_to_train_on_with_all_their_turns(tmp_path, store):
    rows = [
        {"prompt": TALK, "chosen": [ANSWER | {"content": "6"}], "rejected": [ANSWER | {"content": "7"}]},
        {"prompt": "2+2?", "chosen": "4", "rejected": "4"},
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
    ]
    stage = PreferenceFile(file=written(tmp_path / "preferences.jsonl", rows))
    run(store, stage)
    pairs = read_rows(store.directory(stage) / PAIRS)
    assert [conversation(pair) for pair in pairs] == [TALK, [FIRST]]
    assert [(pair["chosen"], pair["rejected"]) for pair in pairs] == [("6", "7"), ("4", "5")]
    assert store.record(stage)["results"] == {"pairs": 2, "dropped_identical": 1}


def test_a_file_of_preferences_that_are_none_names_the_line(tmp_path):
    file = written(tmp_path / "preferences.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a"}])
    with pytest.raises(UserError, match="line 2 has no 'chosen' and 'rejected'"):
        PreferenceFile(file=file).check()


def test_turns_reach_the_model_and_stay_with_responses_and_pairs(tmp_path, store):
    model = LocalModel(path=str(spoken.checkpoint(tmp_path / "model")))
    prompts = PromptFile(file=written(tmp_path / "prompts.jsonl", [{"messages": TALK}, {"prompt": "And 3+3?"}]))
    first, other = (Generate(model=model, prompts=prompts, max_new_tokens=count) for count in (4, 6))
    pairs = PreferencePairs(chosen=first, rejected=other)
    run(store, pairs)
    responses = read_rows(store.directory(first) / RESPONSES)
    assert [conversation(row) for row in responses] == [TALK, [SECOND]]
    assert responses[0]["logprob_post"] != responses[1]["logprob_post"]
    assert conversation(read_rows(store.directory(pairs) / PAIRS)[0]) == TALK


def test_a_column_that_only_later_rows_have_is_written(tmp_path):
    path = tmp_path / "rows.parquet"
    write_rows(path, [{"a": 1}, {"a": 2, "b": "x"}, {"c": 0.5}])
    assert read_rows(path) == [
        {"a": 1, "b": None, "c": None}, {"a": 2, "b": "x", "c": None}, {"a": None, "b": None, "c": 0.5}
    ]  # fmt: skip
