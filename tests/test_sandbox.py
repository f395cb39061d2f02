"""The sandbox contains hostile programs, says why each was stopped, and believes none."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import hostile
import psutil
import pytest

from cong.errors import UserError
from cong.sandbox import Limits, Verdict, check_sandbox, host, run_many, run_tests

GENEROUS = Limits(wall_seconds=60)
LIMITS = replace(GENEROUS, cpu_seconds=2, memory_bytes=256 << 20)
SHORT = replace(LIMITS, wall_seconds=1.5)
PROGRAMS = {
    **{name: (program, ("refused",)) for name, program in hostile.REFUSED.items()},
    **{name: (program, (reason,)) for name, (program, reason) in hostile.OVER_A_LIMIT.items()},
    **{name: (program, ("exception",)) for name, program in hostile.FAILS.items()},
    # Short of memory or of stack, CPython may also raise, a SystemError among others, or use up its time on the way.
    **{
        name: (program, ("killed", "memory", "refused", "exception", "timeout"))
        for name, program in hostile.CRASHES.items()
    },
    **{name: (program, ("assertion", "exception", "killed")) for name, program in hostile.FORGED.items()},
}


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("outside")
    (directory / "secret").write_text("not for programs")
    return directory


@pytest.fixture(scope="module")
def verdicts(outside) -> dict[str, Verdict]:
    """All hostile programs, some at once, and a good one after them."""
    jobs = [(program.replace("OUTSIDE", str(outside)), hostile.TESTS) for program, _ in PROGRAMS.values()]
    asleep = run_many([(program, hostile.TESTS) for program in hostile.ASLEEP.values()], limits=SHORT, workers=5)
    found = run_many([*jobs, (hostile.GOOD, hostile.TESTS)], limits=LIMITS, workers=4)
    return dict(zip([*hostile.ASLEEP, *PROGRAMS, "good"], [*asleep, *found], strict=True))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hostile_program_is_stopped_for_the_right_reason(verdicts, name):
    assert not verdicts[name].passed
    assert verdicts[name].reason in PROGRAMS[name][1], verdicts[name]


@pytest.mark.parametrize("name", hostile.ASLEEP)
def test_a_program_that_uses_no_time_is_ended_from_outside(verdicts, name):
    assert verdicts[name] == Verdict(reason="timeout", detail="not done after 1.5 s")


def test_a_good_program_passes_after_all_that(verdicts):
    assert verdicts["good"] == Verdict(reason="passed")


def test_the_outside_is_as_it_was_and_no_process_is_left(verdicts, outside):
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "not for programs"
    assert sandboxes_of(os.getpid()) == []


def test_the_environment_and_the_descriptors_of_the_outside_are_not_there(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    program = "import os\ndef seen():\n    return dict(os.environ)\ndef descriptors():\n    found = []\n"
    program += "    for n in range(64):\n        try: found.append((n, os.fstat(n).st_size))\n"
    program += "        except OSError: pass\n    return [n for n, _ in found]\n"
    tests = "assert seen() == {}\nassert descriptors() == [0, 1, 2, 4, 5]"  # 4 and 5 lead to the tests.
    assert run_tests(program, tests, limits=GENEROUS) == Verdict(reason="passed")


def test_a_program_sees_python_and_an_empty_directory_and_no_more():
    program = "import os\ndef listing(path):\n    return sorted(os.listdir(path))\ndef there(path):\n"
    program += "    return os.path.exists(path)\n"
    tests = "assert listing('.') == []\n"
    tests += f"assert not any(there(p) for p in ('/proc', '/sys', '/tmp', '/home', '/etc/passwd', {str(Path.cwd())!r}))"
    assert run_tests(program, tests, limits=GENEROUS) == Verdict(reason="passed")


def test_threads_that_outlive_the_tests_end_with_them():
    program = "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\n" + hostile.GOOD
    assert run_tests(program, hostile.TESTS, limits=GENEROUS) == Verdict(reason="passed")
    assert sandboxes_of(os.getpid()) == []


def test_a_sandbox_dies_with_whoever_started_it():
    code = "from cong.sandbox import Limits, run_tests\n"
    code += "run_tests('import time; time.sleep(1000)', 'assert f(1)', limits=Limits(wall_seconds=500))"
    starter = subprocess.Popen([sys.executable, "-c", code])
    try:
        # Launcher, first process, program and tests.
        assert eventually(lambda: len(sandboxes_of(starter.pid)) == 4)
    finally:
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    assert eventually(lambda: sandboxes_of(starter.pid) == [])


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("import math\ndef f(x):\n    return math.sqrt(x)", "assert math.isclose(f(4), 2)"),
        ("def f(x):\n    return [x, (x, {x: None}), {x}, b'a', 10**30]", "assert f(1)[:3] == [1, (1, {1: None}), {1}]"),
        ("def f(n):\n    yield from range(n)", "assert list(f(3)) == [0, 1, 2]"),
        ("def f(x):\n    raise KeyError(x)", "try:\n    f(1)\nexcept KeyError:\n    pass\nelse:\n    assert False"),
        ("class A:\n    def __init__(self, a):\n        self.a = a\ndef f(p):\n    return p.a", "assert f(A(7)) == 7"),
        ("from collections import Counter\ndef f(x):\n    return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}"),
        ("def sum(a, b):\n    return a + b", "from program import sum\nassert sum(1, 2) == 3"),
        ("def f(x):\n    return x", "def check(g):\n    assert g(f) is not None\n    assert g('é') == 'é'\ncheck(f)"),
        ("import json, random, re, datetime, fractions, sqlite3, hashlib\ndef f():\n    return 1", "assert f() == 1"),
        ("def f(x):\n    open('note', 'w').write(x)\n    return open('note').read()", "assert f('a') == 'a'"),
        ("print('x' * 1000)\nx = float('inf')", "assert x == float('inf')"),
    ],
)  # fmt: skip
def test_what_honest_programs_and_tests_do_works(program, tests):
    assert run_tests(program, tests, limits=GENEROUS) == Verdict(reason="passed")


@pytest.mark.parametrize("number", [*range(93, 108), 255, 1023])
def test_a_verdict_does_not_depend_on_how_many_files_are_open_here(number):
    held = []
    try:
        while not held or held[-1] < number:
            held.append(os.open(os.devnull, os.O_RDONLY))
        assert run_tests("def f(x):\n    return x", "assert f(1) == 1", limits=GENEROUS) == Verdict(reason="passed")
    finally:
        for descriptor in held:
            os.close(descriptor)


@pytest.mark.parametrize(("result", "reason"), [("x", "passed"), ("-x", "assertion")])
def test_a_process_that_ignores_its_ended_children_gets_the_same_verdicts(result, reason):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert run_tests(f"def f(x):\n    return {result}", "assert f(1) == 1", limits=GENEROUS).reason == reason
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_test_that_holds_up_every_exception_does_not_hide_that_the_program_has_ended():
    tests = "try:\n    f(1)\nexcept BaseException:\n    pass"
    verdict = run_tests("import os\ndef f(x):\n    os._exit(0)", tests, limits=GENEROUS)
    assert verdict == Verdict(reason="killed", detail="the program ended with exit code 0")


@pytest.mark.parametrize(
    "limits", [replace(GENEROUS, threads=1 << 80), replace(GENEROUS, open_files=1 << 40)], ids=["threads", "files"]
)
def test_a_process_that_cannot_be_confined_is_no_verdict_on_the_program(limits):
    with pytest.raises(UserError, match=r"a process cannot be confined: .*; nothing was run"):
        run_tests(hostile.GOOD, hostile.TESTS, limits=limits)


@pytest.mark.parametrize("refusals", [1, 2])
def test_a_sandbox_that_is_refused_for_a_moment_is_made_again(monkeypatch, refusals):
    starts, start = [], host._start

    def refused_at_first(program, tests, *, report, limits):
        starts.append(program)
        refused = len(starts) <= refusals
        return start(program, tests, report=report, limits=replace(limits, open_files=1 << 40) if refused else limits)

    monkeypatch.setattr(host, "_start", refused_at_first)
    assert run_tests(hostile.GOOD, hostile.TESTS, limits=GENEROUS).passed
    assert len(starts) == refusals + 1


def test_every_test_must_hold():
    assert run_tests(hostile.GOOD, "assert f(1) == 2\nassert f(2) == 5", limits=GENEROUS).reason == "assertion"
    assert run_tests(hostile.GOOD, "assert g(1) == 2", limits=GENEROUS).detail == ("NameError: name 'g' is not defined")
    with pytest.raises(ValueError, match="there are no tests"):
        run_tests(hostile.GOOD, " \n", limits=GENEROUS)


def test_verdicts_come_in_the_order_of_the_jobs_and_equal_jobs_run_once(monkeypatch):
    seen = []
    run = host.run_tests
    monkeypatch.setattr(host, "run_tests", lambda *job, limits: (seen.append(job), run(*job, limits=limits))[1])
    jobs = [(f"x = {n % 3}", "assert x != 1") for n in range(9)]
    assert [verdict.passed for verdict in run_many(jobs, limits=GENEROUS, workers=3)] == [n % 3 != 1 for n in range(9)]
    assert sorted(seen) == sorted(set(jobs))


@pytest.mark.skipif(os.geteuid() != 0, reason="all tests here run as an ordinary user")
def test_an_ordinary_user_has_the_same_sandbox():
    python = next((path for path in (sys.executable, "/usr/bin/python3") if usable_by_all(path)), None)
    if python is None:
        pytest.skip("no interpreter that other users may run")
    source = Path(host.__file__).parents[2]
    hostile_ones = ["import os\nos.fork()", "import os\nos.kill(1, 9)", hostile.FAILS["thread bomb"], hostile.GOOD]
    code = "import json, sys; from cong.sandbox import Limits, run_many\n"
    code += "jobs = [(program, 'assert f(3) == 6') for program in json.loads(sys.argv[1])]\n"
    code += "print([v.reason for v in run_many(jobs, limits=Limits(wall_seconds=60), workers=2)])"
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        shutil.copytree(source / "cong", f"{directory}/cong", ignore=shutil.ignore_patterns("__pycache__"))
        done = subprocess.run(
            [python, "-c", code, json.dumps(hostile_ones)],
            env={"PYTHONPATH": directory, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=directory,
            capture_output=True,
            text=True,
            user=1234,
            group=1234,
            extra_groups=[],
            timeout=300,
        )
    assert done.stdout.strip() == "['refused', 'refused', 'exception', 'passed']", done.stderr


def usable_by_all(python: str) -> bool:
    code = "import sys; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([python, "-c", code], user=1234, group=1234, cwd="/", env={}, timeout=60).returncode == 0
    except OSError:
        return False


def test_where_no_sandbox_can_be_made_nothing_is_run(tmp_path):
    marker = tmp_path / "ran"
    # A user that has no number in its namespace may make no further one, as in a container without rights.
    code = f"""
import ctypes
from cong.errors import UserError
from cong.sandbox import Limits, check_sandbox, run_tests
assert ctypes.CDLL(None).unshare(0x10000000) == 0
for ask in (check_sandbox, lambda: run_tests("open({str(marker)!r}, 'w')", "pass", limits=Limits())):
    try:
        ask()
    except UserError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all(line.startswith("no sandbox for code on this machine: no user namespace") for line in lines)
    assert not marker.exists()


def test_other_machines_are_named(monkeypatch):
    monkeypatch.setattr(host.platform, "machine", lambda: "riscv64")
    check_sandbox.cache_clear()
    with pytest.raises(UserError, match="needs Linux on x86-64, not linux on riscv64"):
        check_sandbox()
    check_sandbox.cache_clear()


def sandboxes_of(pid: int) -> list[int]:
    """Processes of sandboxes that a process started, whoever their parent is now."""
    marks = ("from inside import jail", f'"parent": {pid},')
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if all(mark in command for mark in marks) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def eventually(condition, *, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()
