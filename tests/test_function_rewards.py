"""A Python function as a reward: what it is known by, what it gives, and what is no reward."""

import dataclasses
import importlib
import pickle
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import spoken
from ray import cloudpickle

from cong.data import RESPONSES, SCORES, read_rows, write_rows
from cong.data.prompts import LocalFile, PromptFile
from cong.errors import UserError
from cong.graph.fingerprint import canonical
from cong.graph.resources import load_profile
from cong.graph.userfiles import PREFIX, share_definitions
from cong.run.workload import estimate
from cong.scoring import Score, reward_from

TEXT = '''
"""Rewards of one's own."""
import re
from pathlib import Path
from words_of_mine import GOOD

LIMIT = 3
WORDS = set(Path(__file__).with_name("words.txt").read_text().split())
PATTERN = re.compile(r"\\w+")
UNUSED = 1


class Counter:
    def count(self, text):
        return len([word for word in PATTERN.findall(text) if word in WORDS])


def unused(text):
    return UNUSED


def clipped(number):
    """Not above the limit."""
    return min(number, LIMIT)  # at most


def positive(prompt, response):
    return float(clipped(Counter().count(response)) + GOOD)
'''
FAULTY = """
def faulty(prompt, response):
    number = int(response)
    if number > 2:
        raise KeyError(response)
    return [1.5, float("nan"), None][number]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "words.txt").write_text("kind wise")
    (tmp_path / "words_of_mine.py").write_text("GOOD = 1\n")
    (tmp_path / "rewards.py").write_text(TEXT)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "words_of_mine", raising=False)
    yield tmp_path
    sys.modules.pop("words_of_mine", None)


def identity(folder: Path) -> object:
    importlib.invalidate_caches()
    sys.modules.pop("words_of_mine", None)
    return canonical(reward_from(f"{folder / 'rewards.py'}:positive"))


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# at most", "# never above", True),
        ('"""Not above the limit."""', '"""Clipped."""', True),
        ("UNUSED = 1", "UNUSED = 2", True),
        ("return UNUSED", "return 2 * UNUSED", True),
        ("LIMIT = 3", "LIMIT = 4", False),
        ("min(number", "max(number", False),
        ("if word in WORDS", "if word not in WORDS", False),
        (r'r"\w+"', r'r"\S+"', False),
        ("UNUSED = 1", "UNUSED = 1\nLIMIT += 1", False),
        ("UNUSED = 1", "UNUSED = 1\nWORDS.add('good')", False),
        ("float(clipped", "int(clipped", False),
    ],
)
def test_the_identity_is_all_that_the_function_rests_on_and_nothing_else(folder, old, new, same):
    before = identity(folder)
    assert identity(folder) == before
    assert old in TEXT
    (folder / "rewards.py").write_text(TEXT.replace(old, new))
    assert (identity(folder) == before) is same


@pytest.mark.parametrize(("name", "text"), [("words.txt", "kind"), ("words_of_mine.py", "GOOD = 1.0 + 1\n")])
def test_what_a_constant_was_read_from_and_files_that_are_imported_count(folder, name, text):
    before = identity(folder)
    (folder / name).write_text(text)
    assert identity(folder) != before


def test_where_the_file_lies_does_not_count(folder, tmp_path_factory):
    before = identity(folder)
    other = tmp_path_factory.mktemp("other")
    for name in ("rewards.py", "words.txt"):
        (other / name).write_text((folder / name).read_text())
    assert identity(other) == before


def test_of_an_installed_package_the_version_counts(folder):
    (folder / "rewards.py").write_text("import numpy\ndef positive(prompt, response):\n    return numpy.log(2)\n")
    imports = reward_from(f"{folder / 'rewards.py'}:positive").identity()["imports"]
    assert imports == {"numpy": importlib.import_module("numpy").__version__}


def score(tmp_path, responses, reward, *, actors=0, **settings):
    kept = {"prompt": "ask", "sample": 0, "num_tokens": 1, "finish_reason": "stop", "error": None}
    rows = [{"row_id": str(n), "prompt_id": str(n), "response": text, **kept} for n, text in enumerate(responses)]
    rows.append({**rows[0], "row_id": "lost", "error": "decoding failed"})
    given, out = tmp_path / "given", tmp_path / "out"
    given.mkdir()
    out.mkdir()
    write_rows(given / RESPONSES, rows)
    stage = Score(responses=PromptFile(file=LocalFile(path=__file__)), judge=reward, **settings)
    context = spoken.context(out, {stage.responses: given})
    resources = context.resources.changed(ray=actors > 0, actors=actors)
    stage.run(dataclasses.replace(context, resources=resources))
    return read_rows(out / SCORES)


def test_what_the_function_raises_and_what_is_no_number_fail_their_rows_alone(tmp_path):
    (tmp_path / "mine.py").write_text(FAULTY)
    reward = reward_from(f"{tmp_path / 'mine.py'}:faulty")
    rows = score(tmp_path, ["0", "1", "2", "3", "x"], reward, max_error_share=1.0)
    assert [row["reward"] for row in rows] == [1.5, None, None, None, None, None]
    errors = [row["error"] for row in rows]
    assert errors[:4] == [
        None,
        "the reward is nan",
        "TypeError: faulty returned None, which is no number",
        "KeyError: '3'",
    ]
    assert errors[4].startswith("ValueError: invalid literal")
    assert errors[5] == "decoding failed"


def test_too_many_failed_rows_name_the_first(tmp_path):
    (tmp_path / "mine.py").write_text(FAULTY)
    reward = reward_from(f"{tmp_path / 'mine.py'}:faulty")
    with pytest.raises(
        RuntimeError, match=r"1 of 2 rows failed, more than the 1\.0% allowed; the first is 1: KeyError"
    ):
        score(tmp_path, ["0", "7"], reward)


def test_a_function_travels_to_where_its_file_is_not(folder):
    reward = reward_from(f"{folder / 'rewards.py'}:positive")
    name = f"{PREFIX}rewards"
    module = sys.modules[name]
    cloudpickle.register_pickle_by_value(module)
    try:
        data = cloudpickle.dumps(reward)  # pyright: ignore[reportPrivateImportUsage]
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    del sys.modules[name]
    before = canonical(reward)
    (folder / "rewards.py").unlink()
    arrived = cloudpickle.loads(data)
    assert canonical(arrived) == before
    assert arrived.of({"prompt": "", "response": "kind and wise"}) == 3.0


CACHED = """
import functools

@functools.lru_cache(maxsize=3)
def weights():
    return {"kind": 2.0}

@functools.cache
def weighed(prompt, response):
    return sum(weights().get(word, 0.0) for word in response.split())
"""


def test_a_function_with_a_cache_travels_and_travels_on(tmp_path):
    (tmp_path / "cached.py").write_text(CACHED)
    reward = reward_from(f"{tmp_path / 'cached.py'}:weighed")
    share_definitions()
    data = cloudpickle.dumps(reward)  # pyright: ignore[reportPrivateImportUsage]
    (tmp_path / "cached.py").unlink()
    onward = (
        "import sys, pickle; from ray import cloudpickle; reward = pickle.load(sys.stdin.buffer); "
        "sys.stdout.buffer.write(cloudpickle.dumps(reward))"
    )
    code = "import sys, pickle; print(pickle.load(sys.stdin.buffer).of({'prompt': '', 'response': 'so kind'}))"
    for program in (onward, code):
        data = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True).stdout
    assert data.decode().strip() == "2.0"


def test_a_cached_function_of_an_installed_module_stays_a_name():
    assert pickle.loads(pickle.dumps(urlsplit)) is urlsplit


def test_a_function_is_planned_on_cpus_like_the_actors_that_decode(folder):
    reward = reward_from(f"{folder / 'rewards.py'}:positive")
    stage = Score(responses=PromptFile(file=LocalFile(path=str(folder / "words.txt"))), judge=reward)
    assert str(stage.demand(load_profile("l40x4"))) == "4 CPU"
    assert str(stage.demand(load_profile("laptop"))) == "1 CPU"
    assert stage.memory(load_profile("l40x4")) is None
    assert estimate([stage], load_profile("l40x4")).gpu_seconds == 0
    assert stage.title == "Score(positive)"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rewards.py", "a reward is written FILE.py:FUNCTION"),
        ("rewards.txt:a", "a reward is written FILE.py:FUNCTION"),
        ("nowhere.py:a", "there is no file of rewards"),
        ("mine.py:nothing", "has no function nothing; it has few, many, outer"),
        ("mine.py:NUMBER", "a reward is a function, .* not of int"),
        ("mine.py:short", "a lambda is no reward"),
        ("mine.py:inner", "defined within something else"),
        ("mine.py:few", r"few\(prompt\) cannot be called with a prompt and a response: too many"),
        ("mine.py:many", r"many\(prompt, response, more\) cannot be called .*: missing a required argument: 'more'"),
        ("star.py:all", r"`from math import \*` cannot be followed"),
        ("lacking.py:some", "imports no_such_module, which cannot be found"),
        ("broken.py:some", r"broken\.py, line 1: ZeroDivisionError"),
    ],
)
def test_what_is_no_reward_is_told_in_one_line(tmp_path, name, message):
    files = {
        "mine.py": "NUMBER = 1\nshort = lambda prompt, response: 1.0\ndef few(prompt): pass\n"
        "def many(prompt, response, more): pass\ndef outer(n):\n    def inner(prompt, response):\n"
        "        return n\n    return inner\ninner = outer(2)\n",
        "star.py": "from math import *\ndef all(prompt, response):\n    return sqrt(2)\n",
        "lacking.py": "def some(prompt, response):\n    import no_such_module\n",
        "broken.py": "1 / 0\n",
    }
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message) as refused:
        reward_from(str(tmp_path / name))
    assert "\n" not in str(refused.value)


def test_a_number_that_a_function_gives_can_be_of_any_kind(tmp_path):
    text = "    return {'a': True, 'b': 3, 'c': numpy.float32(0.5)}[response]\n"
    (tmp_path / "mine.py").write_text(f"import numpy\ndef kinds(prompt, response):\n{text}")
    rows = score(tmp_path, ["a", "b", "c"], reward_from(f"{tmp_path / 'mine.py'}:kinds"))
    assert [row["reward"] for row in rows] == [1.0, 3.0, 0.5, None]


def test_a_function_scores_in_actors(folder, ray_of_two_cpus):
    reward = reward_from(f"{folder / 'rewards.py'}:positive")
    module = sys.modules[f"{PREFIX}rewards"]
    cloudpickle.register_pickle_by_value(module)
    try:
        rows = score(folder, ["kind", "wise and kind", "no"], reward, actors=2)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert [row["reward"] for row in rows] == [2.0, 3.0, 1.0, None]
