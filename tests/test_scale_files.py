"""A scale of one's own is a short Python file that starts from a built-in one."""

import json

import pytest
import spoken
from toy import run

from cong import methods
from cong.data import PAIRS, read_rows
from cong.data.preferences import PreferenceFile
from cong.errors import UserError
from cong.scales import scale

MINE = """
import dataclasses
from cong.data.preferences import PreferenceFile
from cong.data.prompts import LocalFile, PromptFile
from cong.models import LocalModel
from cong.scales import scale as built_in

def scale():
    made = built_in("tiny")
    return dataclasses.replace(
        made,
        model=lambda family, size, seed: LocalModel(path={model!r}),
        prompts=lambda seed: PromptFile(file=LocalFile(path={prompts!r})),
        preferences=lambda seed: PreferenceFile(file=LocalFile(path={preferences!r})),
        sft=dataclasses.replace(made.sft, epochs=7),
    )
"""


@pytest.fixture
def mine(tmp_path):
    names = {
        "prompts": [{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a b"}]}],
        "preferences": [{"prompt": "a b", "chosen": "c", "rejected": "d"}],
    }
    paths = {name: tmp_path / f"{name}.jsonl" for name in names}
    for name, rows in names.items():
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "mine.py"
    path.write_text(
        MINE.format(model=str(spoken.checkpoint(tmp_path / "model")), **{k: str(v) for k, v in paths.items()})
    )
    return path


def test_what_a_file_replaces_reaches_the_methods_and_the_rest_stays(mine):
    made = scale(str(mine))
    t = methods.transition("qwen", weak="3B", strong="7B", scale=made)
    student = methods.cong_s(t, alpha=0.4)
    assert student.epochs == 7
    assert student.learning_rate == scale("tiny").sft.learning_rate
    assert isinstance(methods.dpo(t).data, PreferenceFile)
    assert made.name == "mine"


def test_given_preferences_are_what_the_weak_model_is_aligned_on(mine, store):
    t = methods.transition("qwen", weak="3B", strong="7B", scale=scale(str(mine)))
    pairs = methods.dpo(t).data
    run(store, pairs)
    assert [(row["chosen"], row["rejected"]) for row in read_rows(store.directory(pairs) / PAIRS)] == [("c", "d")]


def test_an_aligned_weak_model_is_not_trained(mine):
    mine.write_text(
        mine.read_text().replace(
            "sft=", "aligned=lambda family, size, seed: LocalModel(path='/aligned'),\n        sft="
        )
    )
    t = methods.transition("qwen", weak="3B", strong="7B", scale=scale(str(mine)))
    assert str(t.weak_aligned) == "LocalModel(path='/aligned')"
    assert t.contrast(t.prompts, alpha=0.4).post == t.weak_aligned
    path = methods.staged("qwen", sizes=("1.5B", "3B", "7B"), scale=scale("tiny"), beta=0.5, alphas=(0.4, 0.9))
    assert path[1].weak_aligned != path[0].weak_aligned


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no scale file"),
        ("x = 1", r"has no function `scale\(\)`"),
        ("def scale():\n    return 3", r"`scale\(\)` returns int, not a Scale"),
        ("def scale():\n    return 1 / 0", r"mine\.py, line 2: ZeroDivisionError"),
        ("def scale(:\n    pass", r"mine\.py.*SyntaxError"),
        ("import no_such_module", r"mine\.py, line 1: ModuleNotFoundError"),
        ("from cong.scales import scale as built_in\ndef scale():\n    return built_in('big')", "unknown scale 'big'"),
    ],
)
def test_a_wrong_scale_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        scale(str(path))
