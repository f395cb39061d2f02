"""`make` finds a Python and a compiler, or says in one line what to install. It is never let do anything: `make -n`."""

import shutil
import subprocess
from pathlib import Path

import pytest
from commands import ROOT

WORKING, BROKEN = "#!/bin/sh\nexit 0\n", "#!/bin/sh\necho 'not installed' >&2\nexit 127\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A directory of commands in which there is a compiler and no Python."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "sh").symlink_to("/bin/sh")
    put(commands, "g++", WORKING)
    return commands


def put(commands: Path, name: str, text: str) -> None:
    (commands / name).write_text(text)
    (commands / name).chmod(0o755)


def dry_run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    make = shutil.which("make")
    assert make is not None
    command = [make, "-n", "quickstart", f"VENV={path.parent / 'venv'}", *arguments]
    return subprocess.run(command, cwd=ROOT, env={"PATH": str(path)}, capture_output=True, text=True)


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert all(word in done.stderr for word in words)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_any_of_three_pythons_is_taken(version, path):
    put(path, f"python{version}", WORKING)
    done = dry_run(path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"python{version} -m venv ")
    assert "experiments/quickstart.py" in done.stdout


def test_a_command_that_starts_no_python_is_passed_over(path):
    put(path, "python3.11", BROKEN)
    put(path, "python3.12", WORKING)
    put(path, "python3.13", WORKING)
    assert dry_run(path).stdout.startswith("python3.12 -m venv ")


def test_without_a_python_one_line_says_what_to_install(path):
    one_line(dry_run(path), "install python3.11, 3.12 or 3.13", "python3.11-venv")
    put(path, "python3.13", BROKEN)
    put(path, "python3.10", WORKING)
    one_line(dry_run(path), "install python3.11, 3.12 or 3.13", "python3.11-venv")


def test_without_a_compiler_one_line_says_what_to_install(path):
    put(path, "python3.11", WORKING)
    (path / "g++").unlink()
    one_line(dry_run(path), "no C++ compiler g++", "apt install g++")


def test_a_compiler_and_a_python_of_ones_own_are_taken(path):
    (path / "g++").unlink()
    put(path, "clang++", WORKING)
    done = dry_run(path, "PYTHON=/opt/python", "CXX=clang++")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("/opt/python -m venv ")
