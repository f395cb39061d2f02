"""The sandbox: hostile programs are contained, and what has not passed does not look so."""

import os
import time
from pathlib import Path

import hostile
import psutil
import pytest

from cong.errors import UserError
from cong.evaluation.sandbox import Limits, check_sandbox, host, run_many, run_tests

LIMITS = Limits(seconds=2, memory_bytes=256 << 20, disk_bytes=4 << 20)
GOOD = ("def f(x):\n    return 2 * x", "assert f(3) == 6")


@pytest.fixture(scope="module", autouse=True)
def few_processes():
    """Without a filter that holds, not one of these programs is run."""
    verdict = run_tests(hostile.REFUSED + "refused(os.fork)\nrefused(os.execv, '/bin/sh', ['sh'])", "", limits=LIMITS)
    if not verdict.passed:
        pytest.fail(f"the sandbox lets a program fork: {verdict}", pytrace=False)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All hostile programs, two at a time, beside a store with something to lose."""
    store = tmp_path_factory.mktemp("store")
    (store / "_SUCCESS").write_text("finished")
    os.environ["CONG_TEST_SECRET"] = "do-not-read-me"
    delete = f"import shutil\nshutil.rmtree({str(store)!r}, ignore_errors=True)\nrefused(os.stat, {str(store)!r})"
    programs = {name: program for name, (program, _) in hostile.HARMFUL.items()} | {"deleting the store": delete}
    jobs = [(hostile.REFUSED + program, "") for program in programs.values()]
    found = dict(zip(programs, run_many(jobs, limits=LIMITS, workers=2), strict=True))
    assert (store / "_SUCCESS").read_text() == "finished"
    return found


@pytest.mark.parametrize("name", [*hostile.HARMFUL, "deleting the store"])
def test_a_harmful_program_is_contained(outcomes, name):
    allowed = hostile.HARMFUL.get(name, ("", {"passed"}))[1]
    assert outcomes[name].reason in allowed, outcomes[name]
    assert len(outcomes[name].output) <= LIMITS.output_bytes


def test_nothing_outlives_its_program_and_a_good_one_still_passes(outcomes):
    assert run_tests(*GOOD, limits=LIMITS).passed
    jails = [p for p in psutil.process_iter(["cmdline"]) if "jail.py" in " ".join(p.info["cmdline"] or ())]
    assert not [p for p in jails if p.parent() is not None and p.parent().pid in (1, os.getpid())]  # pyright: ignore


@pytest.mark.parametrize("name", hostile.FORGED)
def test_a_program_that_has_not_passed_does_not_look_so(name):
    assert not run_tests(hostile.FORGED[name], "assert f(1) == 2", limits=LIMITS).passed


@pytest.mark.parametrize(
    ("program", "tests", "reason", "detail"),
    [
        (*GOOD, "passed", ""),
        (GOOD[0], "assert f(3) == 7, 'wrong'", "assertion", "AssertionError: wrong"),
        ("def f(x) return x", GOOD[1], "exception", "SyntaxError"),
        ("", GOOD[1], "exception", "NameError: name 'f' is not defined"),
        (
            "import math, json, re, random, collections, itertools, heapq, functools, datetime, decimal",
            "",
            "passed",
            "",
        ),
        ("import numpy", "", "exception", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "", "exited", "SystemExit: 3"),
        ("open('note', 'w').write('a')", "assert open('note').read() == 'a'", "passed", ""),
    ],
)
def test_an_ordinary_program_gets_its_verdict(program, tests, reason, detail):
    verdict = run_tests(program, tests, limits=LIMITS)
    assert verdict.reason == reason, verdict
    assert detail in verdict.detail


def test_what_a_program_prints_is_kept_up_to_the_limit():
    verdict = run_tests("print('hello')", "", limits=LIMITS)
    assert (verdict.reason, verdict.output) == ("passed", "hello\n")


def test_every_program_begins_in_an_empty_directory():
    program = "import os\nassert os.listdir('.') == [], os.listdir('.')\nopen('left', 'w').close()"
    assert [verdict.reason for verdict in run_many([(program, "")] * 4, limits=LIMITS, workers=2)] == ["passed"] * 4


def test_a_program_is_ended_at_its_limit_of_time():
    started = time.monotonic()
    assert run_tests("while True: pass", "", limits=Limits(seconds=0.5)).reason == "timeout"
    assert time.monotonic() - started < host.START_SECONDS


def test_verdicts_come_in_the_order_of_the_jobs():
    jobs = [("import time; time.sleep(0.3)", "assert False"), ("", ""), ("", "1/0")]
    assert [v.reason for v in run_many(jobs, limits=LIMITS, workers=3)] == ["assertion", "passed", "exception"]


@pytest.mark.parametrize("name", ["seconds", "memory_bytes", "output_bytes"])
def test_a_limit_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} = 0 is not above 0"):
        Limits(**{name: 0})


def test_where_programs_cannot_be_contained_none_is_run(monkeypatch, tmp_path):
    ran = tmp_path / "ran"
    broken = tmp_path / "jail.py"
    broken.write_text(host.JAIL.read_text().replace("_LIBC.unshare(", "_LIBC.unshare(1 | ").replace(
        "import seccomp", f"sys.path.insert(0, {str(host.JAIL.parent)!r})\nimport seccomp"))  # fmt: skip
    monkeypatch.setattr(host, "JAIL", broken)
    with pytest.raises(UserError, match=r"cannot be contained on this machine: .*new namespaces are not allowed"):
        check_sandbox()
    with pytest.raises(host.SandboxError):
        run_tests(f"open({str(ran)!r}, 'w')", "", limits=LIMITS)
    assert not ran.exists()


def test_the_sandbox_works_on_this_machine():
    check_sandbox()
    assert Path(host.JAIL).exists()
