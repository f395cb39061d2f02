"""Files of prompts as people have them: each row that can be decoded is, under its own name; a bad one costs itself."""

import json

import pytest
import spoken

from cong.data import read_rows
from cong.data.jsonlines import lone_surrogate, numbered_lines, parse_object, whole_text
from cong.data.prompts import LocalFile, PromptFile
from cong.errors import UserError
from cong.evaluation import ResponseFile
from cong.generation.files import FileJob, decode_file
from cong.generation.inputs import asked, read_source, row_fault

ENGINE = {"max_new_tokens": 3, "temperature": 0.0, "repetition_penalty": 1.0}
USER, ANSWER = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return spoken.checkpoint(tmp_path_factory.mktemp("model"))


def decoded(model, prompts, output):
    job = FileJob(
        post=model, pre=None, prompts=prompts, output=output, alphas=(1.0,), settings=ENGINE, seed=0,
        resources=spoken.INLINE,
    )  # fmt: skip
    decode_file(job)
    return read_rows(output)


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e", "\r"])
def test_a_line_ends_at_a_line_feed_and_nowhere_else(tmp_path, sign):
    rows = [{"prompt_id": name, "prompt": f"one{sign}two", "response": f"{sign}x"} for name in ("a", "b")]
    plain = ord(sign) < 32  # JSON wants these escaped: the reader must not undo it.
    lines = [json.dumps(row, ensure_ascii=plain) for row in rows]
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\n".join([*lines, "", " "]).encode())
    assert PromptFile(file=LocalFile(path=str(path))).rows() == [
        {"prompt_id": row["prompt_id"], "prompt": row["prompt"]} for row in rows
    ]
    assert [row["response"] for row in ResponseFile(file=LocalFile(path=str(path)))._rows()] == [f"{sign}x"] * 2
    assert read_source(path) == rows


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""], ids=["with a byte order mark", "without"])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["carriage returns", "line feeds"])
def test_marks_of_editors_are_no_part_of_a_line(start, end):
    content = start + end.join([b'{"a": 1}', b"", b'{"a": "\xef\xbb\xbf"}'])
    found = [(number, parse_object(line)) for number, line in numbered_lines(content)]
    assert found == [(1, {"a": 1}), (3, {"a": "\ufeff"})]


def test_each_bad_line_costs_itself_alone(model, tmp_path):
    path = tmp_path / "prompts.jsonl"
    lines = [
        b'{"prompt": "good"}',
        b'{"prompt": "half \\udc00 of one"}',
        b'{"prompt_id": "x\\ud800", "prompt": "in its name"}',
        b'{"messages": [{"role": "user", "content": "\\ud83d"}]}',
        b'{"prompt": "a whole one \\ud83d\\ude00"}',
        b'{"prompt": "\xff"}',
        b"[1, 2]",
        b'{"prompt": "good"}',
    ]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    rows = decoded(model, path, tmp_path / "out.parquet")
    assert [row["error"] is None for row in rows] == [True, False, False, False, True, False, False, True]
    assert rows[0]["response"] == rows[7]["response"]
    assert rows[1]["prompt"] == r"half \udc00 of one"
    assert rows[2]["prompt_id"] == r"x\ud800"
    for number, word in ((1, r"\\udc00|\udc00"), (3, r"\ud83d"), (5, "UTF-8"), (6, "no JSON object")):
        assert any(part in rows[number]["error"] for part in word.split("|"))


def test_ids_are_kept_as_they_are_given(model, tmp_path):
    given = [0, 7, "", None, "row-9", 0.5]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt_id": name, "prompt": "x"}) + "\n" for name in given))
    rows = decoded(model, path, tmp_path / "out.parquet")
    assert [row["prompt_id"] for row in rows] == ["0", "7", "row-000003", "row-000004", "row-9", "0.5"]
    assert not any(row["error"] for row in rows)
    path.write_text('{"prompt_id": 0, "prompt": "x"}\n{"prompt_id": 12, "prompt": "y"}\n')
    assert [row["prompt_id"] for row in PromptFile(file=LocalFile(path=str(path))).rows()] == ["0", "12"]


@pytest.mark.parametrize(
    ("row", "fault", "turns"),
    [
        ({"messages": [USER]}, None, [USER]),
        ({"messages": [USER, ANSWER, USER], "prompt": "other"}, None, [USER, ANSWER, USER]),
        ({"messages": [USER, ANSWER], "prompt": "2+2?"}, None, [USER]),
        ({"messages": [USER, ANSWER]}, "end with the assistant's answer", None),
        ({"messages": [USER, ANSWER], "prompt": "3+3?"}, "end with the assistant's answer", None),
        ({"messages": [USER, ANSWER, USER, ANSWER], "prompt": "2+2?"}, "end with the assistant's answer", None),
        ({"messages": [{"role": "system", "content": "s"}, USER, ANSWER], "prompt": "2+2?"}, "answer", None),
        ({"messages": [USER, {"role": "model", "content": "4"}]}, "end with the assistant's answer", None),
        ({"messages": [ANSWER]}, "end with the assistant's answer", None),
        ({"messages": [], "prompt": "2+2?"}, None, None),
        ({"messages": "2+2?"}, "must be a list", None),
    ],
)
def test_nothing_is_decoded_behind_an_answer(row, fault, turns):
    told = row_fault(row, "a", set())
    assert (told is None) == (fault is None)
    if fault is None:
        assert asked(row) == turns
    else:
        assert fault in str(told)


def test_an_index_that_pandas_wrote_is_no_column(tmp_path):
    import pandas

    frame = pandas.DataFrame({"prompt": list("abcd"), "score": [5, 0, 7, 1]})
    filtered, named = frame.drop(index=1), frame.set_index("score")
    filtered[["prompt"]].to_parquet(tmp_path / "filtered.parquet")
    named.to_parquet(tmp_path / "named.parquet")
    assert read_source(tmp_path / "filtered.parquet") == [{"prompt": text} for text in "acd"]
    assert read_source(tmp_path / "named.parquet") == [{"prompt": text} for text in "abcd"]
    frame.rename(columns={"score": "prompt_id"}).set_index("prompt_id").to_parquet(tmp_path / "ids.parquet")
    assert [row["prompt_id"] for row in read_source(tmp_path / "ids.parquet")] == [5, 0, 7, 1]
    frame.to_parquet(tmp_path / "more.parquet")
    assert "unknown column 'score'" in str(row_fault(read_source(tmp_path / "more.parquet")[0], "a", set()))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt_id": "a", "prompt": "\\ud83d"}', r"line 2 holds half of a character, \\ud83d"),
        ('{"prompt_id": "a"}', "line 2 has no 'prompt'"),
        ("{", "line 2 is no JSON"),
        ("[]", "line 2 is no JSON object"),
    ],
)
def test_a_file_of_a_stage_is_refused_with_its_line(tmp_path, line, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt_id": "z", "prompt": "x"}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        PromptFile(file=LocalFile(path=str(path))).check()


def test_halves_of_characters_are_found_wherever_they_are():
    assert lone_surrogate({"a": ["x", {"b\ud800": 1}]}) == "\\ud800"
    assert lone_surrogate({"a": ["\U0001f600", None, 1.5]}) is None
    assert whole_text("a\ud83d") == "a\\ud83d"
    assert whole_text("\U0001f600") == "\U0001f600"
