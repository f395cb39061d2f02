"""An answer of a judge belongs to the server, and the deployment, that gave it."""

import dataclasses

import pytest
from judge_server import JudgeServer, serving

from cong.evaluation.judging.cache import place_of, request_key
from cong.evaluation.judging.client import JudgeClient
from cong.evaluation.judging.judges import AlpacaEval2
from cong.evaluation.judging.pairs import Pair

PAIR = Pair(instruction="Say hi.", output="Hello there!", baseline="No.", finished=(True, True))


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def ask(settings, directory):
    judge = AlpacaEval2(model="judge-1")
    client = JudgeClient(settings=settings, directory=directory)
    (body,) = judge.requests(PAIR)
    answer = client.ask(body, usable=judge.check_answer)
    client.stop()
    return answer


def test_another_server_is_asked_and_the_same_one_is_not(tmp_path):
    with serving(JudgeServer()) as first, serving(JudgeServer()) as second:
        asked = [ask(server.settings(), tmp_path).cached for server in (first, second, first, second)]
    assert asked == [False, False, True, True]
    assert len(first.outcomes) == len(second.outcomes) == 1


def test_another_deployment_at_the_same_address_is_asked(tmp_path):
    with serving(JudgeServer()) as server:
        settings = [server.settings(deployment=name) for name in (None, "small", "large", "small")]
        assert [ask(one, tmp_path).cached for one in settings] == [False, False, False, True]


def test_the_environments_address_counts_like_that_of_a_profile(tmp_path, monkeypatch):
    with serving(JudgeServer()) as server:
        ask(server.settings(), tmp_path)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/")
        assert ask(dataclasses.replace(server.settings(), url=None), tmp_path).cached


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://host:8000/v1", "http://host:8001/v1"),
        ("https://x.openai.azure.com/openai/deployments/a", "https://x.openai.azure.com/openai/deployments/b"),
        ("http://gateway/team-a/v1", "http://gateway/team-b/v1"),
    ],
)
def test_ports_and_paths_tell_servers_apart(one, other):
    assert request_key({"model": "m"}, server=place_of(one)) != request_key({"model": "m"}, server=place_of(other))


def test_a_place_holds_no_credentials_and_has_one_form():
    assert place_of("https://user:secret@Host.example/v1/?api-version=2&key=secret") == "https://host.example/v1"
