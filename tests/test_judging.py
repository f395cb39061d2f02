"""The HTTP judge against a real server that fails as real ones do, and the stage that asks it."""

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from commands import SECRET
from judge_server import JudgeServer, serving
from toy import INLINE

from cong.data import read_rows
from cong.data.prompts import LocalFile
from cong.errors import UserError
from cong.evaluation import (
    ARENA_HARD_TABLE,
    COMPARISONS,
    AlpacaEval2,
    ArenaHardJudge,
    ArenaHardTable,
    Compare,
    ExactComparison,
    ResponseFile,
)
from cong.evaluation.judging import Template
from cong.evaluation.judging import client as client_module
from cong.evaluation.judging.ask import JUDGMENTS
from cong.evaluation.judging.faults import JudgeUnusable, retry_after
from cong.evaluation.judging.judges import preference
from cong.evaluation.judging.ledger import BudgetReached, Ledger
from cong.graph.judging import JudgeEndpoint
from cong.graph.plan import make_plan
from cong.graph.resources import load_profile
from cong.graph.runner import Runner, StageFailed
from cong.graph.store import Store
from cong.synthetic.world import CLOSING, GOOD_OPENER, PART_MARK, World, make_prompts, read_prompt

KEY = f"sk-{SECRET}-0123456789"
PROMPTS = 500
BASELINE = "a baseline of some length."


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(client_module, "LONGEST_PAUSE", 0.2)


def responses(path: Path, texts: dict[str, str]) -> ResponseFile:
    lines = [
        json.dumps({"prompt_id": name, "prompt": f"Say {name}.", "response": text}) for name, text in texts.items()
    ]
    path.write_text("\n".join(lines))
    return ResponseFile(file=LocalFile(path=str(path)))


def compare(tmp_path: Path, ours: dict[str, str], *, judge=None, **settings) -> Compare:
    return Compare(
        responses=responses(tmp_path / "ours.jsonl", ours),
        baseline=responses(tmp_path / "theirs.jsonl", dict.fromkeys(ours, BASELINE)),
        judge=judge or AlpacaEval2(model="judge-1"),
        **settings,
    )


def run(store: Store, stage: Compare, settings: JudgeEndpoint) -> list[dict]:
    resources = dataclasses.replace(INLINE, judging=settings)
    Runner(store=store, resources=resources).run(make_plan({"a": stage}, store))
    return read_rows(store.directory(stage) / COMPARISONS)


def texts(count: int) -> dict[str, str]:
    return {f"p{number:03d}": "long " * (number % 11) + f"answer {number}" for number in range(count)}


def expected(text: str) -> float:
    """What the server's log-probabilities -0.1 and -2.4 amount to, for the longer output."""
    share = preference({"m": -0.1, "M": -2.4}, is_switched=False)
    return share if len(text) < len(BASELINE) else 3 - share


def test_500_prompts_through_a_server_that_fails_20_percent_of_the_time(tmp_path, store, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "filelock")
    ours = texts(PROMPTS)
    for number, fate in enumerate(("500", "400", "cut")):
        ours[f"p{number:03d}"] = f"always {fate}"
    stage = compare(tmp_path, ours, max_error_share=0.02)
    with serving(JudgeServer(failing=0.2)) as server:
        rows = run(store, stage, server.settings(budget=5.0, attempts=12))
    results = store.record(stage)["results"]
    failed = {row["prompt_id"]: row["error"] for row in rows if row["error"]}

    assert [row["prompt_id"] for row in rows] == list(ours)
    assert failed == {
        "p000": "12 attempts failed: HTTP 500 (12 times)",
        "p001": "1 attempts failed: HTTP 400: no, Bearer [key]",
        "p002": "12 attempts failed: the connection was cut (12 times)",
    }
    for row in rows[3:]:
        assert row["preference"] == pytest.approx(expected(row["response"]))
    assert (results["failed_share"], results["undecided_rows"]) == (3 / PROMPTS, 0)
    assert 0 < results["wr"] < 100
    assert results["wr_se"] > 0
    assert results["lc_se"] > 0

    # The server's log: it failed often and in every way, and no request was answered twice.
    assert set(server.outcomes) > {"time-out", "429", "500", "cut", "invalid JSON", "no log-probabilities"}
    assert 0.1 < 1 - server.outcomes.count("answered") / len(server.outcomes) < 0.3
    assert len(server.answers) == server.outcomes.count("answered") == PROMPTS - 3
    assert set(server.answers.values()) == {1}
    assert len(list((store.root / JUDGMENTS).rglob("*.json"))) == PROMPTS - 3

    # What was booked covers what was billed, and is within the budget.
    assert results["cost"] < server.billed <= results["spent_now"] <= 5.0
    written = [path for path in (*store.root.rglob("*"), *tmp_path.rglob("*")) if path.is_file()]
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


def test_judging_again_asks_nothing_that_is_known(tmp_path, store):
    stage = compare(tmp_path, texts(12))
    with serving(JudgeServer()) as server:
        first = run(store, stage, server.settings())
        other = dataclasses.replace(stage, max_error_share=0.5)
        again = run(store, other, server.settings())
    assert len(server.outcomes) == 12
    assert [row["preference"] for row in again] == [row["preference"] for row in first]
    assert ({row["cached"] for row in first}, {row["cached"] for row in again}) == ({False}, {True})
    assert store.record(other)["results"]["spent_now"] == 0


def test_the_budget_stops_judging_before_it_is_passed_and_a_higher_one_goes_on(tmp_path, store):
    stage = compare(tmp_path, texts(60))
    with serving(JudgeServer()) as server:
        with pytest.raises(StageFailed, match=r"prompts are not judged: the budget of 0.1 USD is reached") as failure:
            run(store, stage, server.settings(budget=0.1))
        assert isinstance(failure.value.failures[0][1], UserError)
        assert not store.is_complete(stage)
        assert 0.05 < server.billed <= 0.1
        told = read_rows(store.directory(stage) / COMPARISONS)
        asked = len(server.outcomes)
        assert len(told) == 60
        assert sum(row["error"] is None for row in told) == asked < 60
        assert all("the budget of 0.1 USD is reached" in row["error"] for row in told if row["preference"] is None)
        rows = run(store, stage, server.settings(budget=1.0))
    assert len(server.outcomes) == 60
    assert set(server.answers.values()) == {1}
    assert sum(row["cached"] for row in rows) == asked


def test_a_bound_whose_request_was_lost_counts_as_spent(tmp_path, store):
    stage = compare(tmp_path, {"p1": "always cut"}, max_error_share=1.0)
    with serving(JudgeServer()) as server:
        (row,) = run(store, stage, server.settings(budget=1.0, attempts=2))
    assert row["error"] == "2 attempts failed: the connection was cut (2 times)"
    assert 0 < server.billed <= store.record(stage)["results"]["spent_now"]


def test_the_ledger_survives_half_a_line_and_dead_processes(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", budget=1.0, patience=0.1)
    ledger.settle(ledger.reserve(0.5), 0.1)
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    line = {"reserve": "lost", "usd": 0.6, "by": {**ledger._me, "pid": gone.pid}}
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write(json.dumps(line) + '\n{"reserve": "ha')
    again = Ledger(tmp_path / "ledger.jsonl", budget=1.0, patience=0.1)
    assert again.spent() == pytest.approx(0.7)
    again.reserve(0.2)
    with pytest.raises(BudgetReached, match=r"0.9000 USD are spent or may be, the next request may cost 0.2000"):
        again.reserve(0.2)


def test_a_rate_limit_makes_everybody_wait_as_long_as_the_server_says(tmp_path, store):
    with serving(JudgeServer(script=("429",), retry_after="0.4")) as server:
        run(store, compare(tmp_path, texts(6)), server.settings(concurrency=1))
    assert server.outcomes == ["429"] + ["answered"] * 6
    assert 0.4 <= server.times[1] - server.times[0] < 2


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("1.5", 1.5), ("-3", 0), ("soon", None), (None, None)],
)
def test_retry_after_is_a_number_of_seconds(header, seconds):
    assert retry_after({} if header is None else {"retry-after": header}) == seconds


def test_retry_after_may_be_a_date():
    header = formatdate(time.time() + 1000, usegmt=True)
    assert retry_after({"retry-after": header}) == pytest.approx(1000, abs=10)


@pytest.mark.parametrize(
    ("fate", "message"), [("401", r"refuses the key in OPENAI_API_KEY \(HTTP 401\)"), (None, "does not answer")]
)
def test_a_judge_that_cannot_be_asked_stops_the_stage_at_once(tmp_path, store, fate, message):
    stage = compare(tmp_path, dict.fromkeys(texts(100), f"always {fate}"))
    with serving(JudgeServer()) as server:
        settings = server.settings(attempts=2)
    if fate:
        with serving(server):
            settings = server.settings(attempts=2)
            with pytest.raises(StageFailed, match=message) as failure:
                run(store, stage, settings)
            assert len(server.outcomes) <= settings.concurrency
    else:
        with pytest.raises(StageFailed, match=message) as failure:
            run(store, stage, settings)
    assert isinstance(failure.value.failures[0][1], JudgeUnusable)
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize(("key", "message"), [(" \n", "is not set"), ("sk-\u2019", "a character that no key has")])
def test_a_missing_or_mangled_key_is_said_before_anything_runs(tmp_path, monkeypatch, key, message):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match=f"OPENAI_API_KEY .*{message}"):
        compare(tmp_path, texts(1)).check()


def test_a_key_that_a_long_message_quotes_is_not_cut_in_half(tmp_path, store):
    stage = compare(tmp_path, {"p1": "always 422"}, max_error_share=1.0)
    with serving(JudgeServer()) as server:
        (row,) = run(store, stage, server.settings())
    assert row["error"].startswith("1 attempts failed: HTTP 422: xxx")
    assert KEY[:8] not in row["error"]


def test_too_many_failed_prompts_fail_the_stage(tmp_path, store):
    ours = {**texts(9), "bad": "always 400"}
    with (
        serving(JudgeServer()) as server,
        pytest.raises(StageFailed, match=r"1 of 10 rows failed, more than the 5.0% allowed; the first is bad"),
    ):
        run(store, compare(tmp_path, ours, max_error_share=0.05), server.settings())


def test_arena_hard_plays_two_games_and_reads_their_verdicts(tmp_path, store):
    ours = {"short": "no", "longer": "an answer that is longer than the baseline's", "none": "undecided"}
    judge = ArenaHardJudge(version="v0.1", model="judge-1")
    with serving(JudgeServer()) as server:
        stage = compare(tmp_path, ours, judge=judge)
        rows = run(store, stage, server.settings())
    assert {row["prompt_id"]: row["labels"] for row in rows} == {
        "short": ["A>B", "B>>A"],
        "longer": ["B>>A", "A>B"],
        "none": [None, None],
    }
    assert [row["preference"] for row in rows] == [1.0, 2.0, None]
    results = store.record(stage)["results"]
    assert (results["wr"], results["battles"], results["dropped"]) == (50.0, 8, 2)
    assert len(server.outcomes) == 6


def test_alpaca_eval_knows_same_outputs_and_answers_without_a_verdict(tmp_path, store):
    ours = {"same": BASELINE, "none": "undecided", "long": "an answer that is rather longer"}
    with serving(JudgeServer()) as server:
        rows = run(store, compare(tmp_path, ours), server.settings())
    assert [row["preference"] for row in rows] == [1.5, None, pytest.approx(expected("x" * 30))]
    assert [row["error"] for row in rows] == [None] * 3
    assert len(server.outcomes) == 2


def test_rows_are_joined_by_prompt_id_and_what_cannot_be_compared_says_why(tmp_path, store):
    ours = responses(tmp_path / "ours.jsonl", {"c": "three", "a": "one", "z": "?"})
    theirs = responses(tmp_path / "theirs.jsonl", {"a": "1", "b": "2", "c": "3"})
    stage = Compare(responses=ours, baseline=theirs, judge=AlpacaEval2(model="judge-1"), max_error_share=0.5)
    with serving(JudgeServer()) as server:
        rows = run(store, stage, server.settings())
    assert [(row["prompt_id"], row["baseline_response"], row["error"]) for row in rows] == [
        ("c", "3", None),
        ("a", "1", None),
        ("z", None, "the baseline has no response to this prompt"),
    ]


def test_several_models_share_one_table_with_style_control(tmp_path, store):
    judge = ArenaHardJudge(version="v2.0", model="judge-1")
    plain = {f"p{n}": f"{'word ' * (n % 9)}{n}" for n in range(24)}
    titled = {name: f"# {text}\n- {text}" for name, text in plain.items()}
    theirs = responses(
        tmp_path / "theirs.jsonl", {name: BASELINE + "!" * (number % 5) for number, name in enumerate(plain)}
    )
    models = tuple(
        (name, Compare(responses=responses(tmp_path / f"{name}.jsonl", ours), baseline=theirs, judge=judge))
        for name, ours in (("plain", plain), ("titled", titled))
    )
    table = ArenaHardTable(models=models)
    with serving(JudgeServer()) as server:
        resources = dataclasses.replace(INLINE, judging=server.settings())
        Runner(store=store, resources=resources).run(make_plan({"a": table}, store))
    rows = {row["model"]: row for row in read_rows(store.directory(table) / ARENA_HARD_TABLE)}
    assert rows["titled"]["wr"] > rows["plain"]["wr"] + 20
    for row in rows.values():
        assert row["sc_low"] <= row["sc"] <= row["sc_high"]
    with pytest.raises(ValueError, match="at least two"):
        ArenaHardTable(models=models[:1])


def test_the_exact_reward_compares_without_a_server(tmp_path, store, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    world = World(categories=2, attributes=2)
    prompts = make_prompts(world, split="heldout", count=8, seed=0)
    best = {row["prompt_id"]: best_response(world, row["prompt"]) for row in prompts}
    sides = {
        "ours": best,
        "theirs": {**dict.fromkeys(best, "maybe"), prompts[0]["prompt_id"]: best[prompts[0]["prompt_id"]]},
    }
    for name, found in sides.items():
        lines = [
            {"prompt_id": row["prompt_id"], "prompt": row["prompt"], "response": found[row["prompt_id"]]}
            for row in prompts
        ]
        (tmp_path / name).write_text("\n".join(map(json.dumps, lines)))
    ours, theirs = (ResponseFile(file=LocalFile(path=str(tmp_path / name))) for name in sides)
    stage = Compare(responses=ours, baseline=theirs, judge=ExactComparison(world=world))
    rows = run(store, stage, JudgeEndpoint())
    assert [row["preference"] for row in rows] == [1.5] + [2.0] * 7
    results = store.record(stage)["results"]
    assert (results["wr"], results["wins"], results["draws"], results["cost"]) == (93.75, 7, 1, 0)


def best_response(world: World, prompt: str) -> str:
    parts = [" ".join(world.right[part.subject][: part.count]) for part in read_prompt(prompt)]
    return f"{GOOD_OPENER} {f' {PART_MARK} '.join(parts)} {CLOSING}"


SCRIPT = """
import sys
from pathlib import Path
from cong.evaluation.judging import AlpacaEval2, JudgeClient, Pair
from cong.evaluation.judging.ask import judge_pairs
from cong.graph.judging import JudgeEndpoint
url, directory, concurrency = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
settings = JudgeEndpoint(url=url, concurrency=concurrency, input_price=10.0, output_price=30.0, budget=5.0)
pairs = {str(n): Pair(instruction=f"Say {n}.", output="x" * n, baseline="y" * 20) for n in range(80)}
client = JudgeClient(settings=settings, directory=directory)
judged = judge_pairs(AlpacaEval2(model="judge-1"), pairs, client=client, concurrency=concurrency)
print(sum(one.error is None for one in judged.values()))
"""


def _process(server: JudgeServer, directory: Path, *, concurrency: int = 4) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, server.url, str(directory), str(concurrency)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_processes_share_the_cache_and_a_killed_one_loses_no_answer(tmp_path):
    with serving(JudgeServer()) as server:
        killed = _process(server, tmp_path / "cache", concurrency=1)
        while len(server.outcomes) < 20:
            assert killed.poll() is None, killed.communicate()[0]
            time.sleep(0.01)
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
        kept = len(list((tmp_path / "cache").rglob("*.json")))
        asked = len(server.outcomes)
        # One request can have been under way.
        assert asked - 1 <= kept <= asked < 80
        both = [_process(server, tmp_path / "cache") for _ in range(2)]
        said = [process.communicate(timeout=60)[0] for process in both]
    assert said == ["80\n", "80\n"]
    assert len(server.outcomes) == asked + 80 - kept
    assert sorted(set(server.answers.values())) in ([1], [1, 2])
    assert sum(count == 2 for count in server.answers.values()) == asked - kept


def test_the_judge_is_identity_and_where_it_is_asked_is_not(tmp_path):
    stage = compare(tmp_path, texts(2))
    assert stage.fingerprint != dataclasses.replace(stage, judge=AlpacaEval2(model="judge-2")).fingerprint
    template = Template(name="own", version="1", system="Judge.", user="{instruction} {output_1} {output_2}")
    other = dataclasses.replace(stage, judge=AlpacaEval2(model="judge-1", template=template))
    newer = AlpacaEval2(model="judge-1", template=dataclasses.replace(template, version="2"))
    assert len({stage.fingerprint, other.fingerprint, dataclasses.replace(stage, judge=newer).fingerprint}) == 3
    assert "url" not in json.dumps(stage.identity())
    with pytest.raises(ValueError, match=r"has no slot \{output_2\}"):
        Template(name="own", version="1", system="", user="{instruction} {output_1}")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("url = 'localhost:8000'", "judging.url is not of the form"),
        ("url = 'https://me:secret@host/v1'", "judging.url holds credentials"),
        ("budget = 3", "judging.budget needs judging.input_price"),
        ("concurrency = 0", "judging.concurrency = 0 is below 1"),
        ("speed = 3", "unexpected keyword argument 'speed'"),
    ],
)
def test_a_wrong_judging_table_in_a_profile_is_one_clear_line(tmp_path, table, message):
    path = tmp_path / "mine.toml"
    path.write_text(f"[hardware]\ndevice = 'cpu'\n[judging]\n{table}\n")
    with pytest.raises(UserError, match=message):
        load_profile(str(path))
    path.write_text("[judging]\nurl = 'http://localhost:8000/v1'\nconcurrency = 3\n")
    assert load_profile(str(path)).judging.concurrency == 3
