"""Answers of a judge that are none: each costs its own row, and no other."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import spoken
from toy import run

from cong.data.prompts import LocalFile
from cong.evaluation import Compare, ResponseFile
from cong.evaluation.judging import AlpacaEval2, ArenaHardJudge, ExactComparison
from cong.evaluation.judging import client as client_module
from cong.evaluation.judging.ask import Judged, judge_pairs
from cong.evaluation.judging.client import JudgeClient
from cong.evaluation.judging.pairs import LocalJudge, Pair, Verdict
from cong.graph.judging import JudgeEndpoint
from cong.graph.store import Store
from cong.synthetic.world import World

PAIRS = {name: Pair(instruction=name, output="one", baseline="another") for name in ("a", "bad", "c")}


def top(**logprobs: Any) -> dict[str, Any]:
    found = [{"token": token, "logprob": value} for token, value in logprobs.items()]
    return {"choices": [{"logprobs": {"content": [{"top_logprobs": found}]}}]}


def said(text: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}}]}


def judged(directory: Path, monkeypatch: pytest.MonkeyPatch, bad: str, judge: Any, good: Any) -> dict[str, Judged]:
    """Judge three pairs; the answer about the second is `bad`."""
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.001)
    client = JudgeClient(settings=JudgeEndpoint(url="http://nowhere/v1", attempts=2), directory=directory)

    def create(**body: Any) -> Any:
        return SimpleNamespace(text=bad if "bad" in json.dumps(body["messages"]) else json.dumps(good))

    raw = SimpleNamespace(with_raw_response=SimpleNamespace(create=create))
    stand_in = SimpleNamespace(chat=SimpleNamespace(completions=raw), close=lambda: None)
    monkeypatch.setattr(client, "_openai", stand_in)
    return judge_pairs(judge, PAIRS, client=client, concurrency=2)


@pytest.mark.parametrize(
    "bad",
    [
        json.dumps(top(m=float("nan"), M=-1.0)),
        json.dumps(top(m=1_000.0)),
        json.dumps(top(m=float("inf"))),
        json.dumps(top(m="much")),
        "[" * 20_000,
        '{"choices": "none"}',
        '{"choices": {"0": 1}}',
        "null",
        "",
    ],
)
def test_an_answer_without_usable_log_probabilities_fails_its_own_row(tmp_path: Path, monkeypatch, bad: str) -> None:
    found = judged(tmp_path, monkeypatch, bad, AlpacaEval2(), top(m=-0.1, M=-2.4))
    assert found["bad"].verdict is None
    assert found["bad"].error
    assert found["bad"].error.startswith("2 attempts failed: the answer ")
    assert [found[name].error for name in ("a", "c")] == [None, None]


@pytest.mark.parametrize("bad", ['{"choices": [{"message": {"content": "\\ud83d [[A>B]]"}}]}', json.dumps(said(["A"]))])
def test_an_answer_without_a_text_that_can_be_kept_fails_its_own_row(tmp_path: Path, monkeypatch, bad: str) -> None:
    found = judged(tmp_path, monkeypatch, bad, ArenaHardJudge(version="v0.1"), said("[[A>B]]"))
    assert found["bad"].error
    assert {found[name].verdict.preference for name in ("a", "c") if found[name].verdict} == {1.5}  # pyright: ignore


@pytest.mark.parametrize("usage", [[], "many", {"prompt_tokens": "3"}, {"prompt_tokens": -1, "completion_tokens": 2}])
def test_a_bill_that_is_none_is_not_read(tmp_path: Path, monkeypatch, usage: Any) -> None:
    bad = json.dumps(top(m=-0.1, M=-2.0) | {"usage": usage})
    found = judged(tmp_path, monkeypatch, bad, AlpacaEval2(), top(m=-0.1, M=-2.4))
    assert all(one.verdict is not None for one in found.values())
    assert found["bad"].output_tokens in (0, 2)


def test_a_request_that_cannot_be_written_is_its_pairs_error(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(PAIRS, "half", Pair(instruction="\ud83d", output="one", baseline="another"))
    found = judged(tmp_path, monkeypatch, json.dumps(top(m=-1.0)), AlpacaEval2(), top(m=-0.1, M=-2.4))
    assert "UnicodeEncodeError" in (found["half"].error or "")
    assert [name for name, one in found.items() if one.error] == ["half"]


def test_a_kept_answer_that_is_none_is_asked_for_again(tmp_path: Path, monkeypatch) -> None:
    arguments = (tmp_path, monkeypatch, json.dumps(top(m=-1.0)), AlpacaEval2(), top(m=-0.1, M=-2.4))
    judged(*arguments)
    for path, broken in zip(sorted(tmp_path.rglob("*.json")), ({"response": top(m=float("nan"))}, {}, []), strict=True):
        path.write_text(json.dumps(broken))
    again = judged(*arguments)
    assert not any(one.cached or one.error for one in again.values())


def test_a_pair_that_the_exact_reward_cannot_read_fails_its_own_row(tmp_path: Path) -> None:
    world = World(categories=2, attributes=2)
    pairs = {"strange": Pair(instruction="not of this world", output="a", baseline="b")}
    found = ExactComparison(world=world).judge(pairs, spoken.context(tmp_path))["strange"]
    assert found.verdict is None
    assert (found.error or "").startswith("the judge cannot compare this pair: ")


@dataclass(frozen=True, kw_only=True)
class Longer(LocalJudge):
    """Prefers the longer response; nothing of `cong` knows it."""

    def verdict(self, pair: Pair) -> Verdict:
        return Verdict(preference=1.0 + (len(pair.output) > len(pair.baseline)))


def test_a_judge_of_ones_own_is_one_class(tmp_path: Path, store: Store) -> None:
    sides = []
    for name, text in (("ours", "longer"), ("theirs", "short")):
        path = tmp_path / f"{name}.jsonl"
        lines = ({"prompt_id": str(n), "prompt": "p", "response": text if n else "same"} for n in range(2))
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        sides.append(ResponseFile(file=LocalFile(path=str(path))))
    compared = Compare(responses=sides[0], baseline=sides[1], judge=Longer())
    run(store, compared)
    assert store.record(compared)["results"]["wr"] == 50.0
    assert compared.work(spoken.INLINE).requests == 0
    assert dataclasses.replace(compared, judge=AlpacaEval2()).fingerprint != compared.fingerprint


@pytest.mark.parametrize(
    ("judgment", "old", "new"),
    [
        ("[[A>B]] at first, but [[B>A]]", None, "B>A"),
        ("[[A>>B]], I repeat: [[A>>B]]", "A>>B", "A>>B"),
        ("in short [B>A]", None, "B>A"),
        ("[[b>>a]]", None, "B>>A"),
        ("[[B<A]]", None, "B<A"),
        ("[[A=B]]", "A=B", "A=B"),
    ],
)
def test_each_version_of_arena_hard_reads_verdicts_as_in_its_own_time(judgment: str, old: str, new: str) -> None:
    pair = Pair(instruction="q", output="one", baseline="another")
    for judge, label in ((ArenaHardJudge(version="v0.1"), old), (ArenaHardJudge(version="v2.0"), new)):
        verdict = judge.verdict(pair, [said(judgment)] * 2)
        assert verdict.labels == (label, label)
        assert verdict.preference == (None if label is None else 1.5)
