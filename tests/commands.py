"""The command line as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "experiments" / "quickstart.py"
EXPERIMENT = ROOT / "tests" / "numbers_experiment.py"
SECRET = "do-not-write-me-down"


def start(*arguments: str, env: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "cong.cli", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def cong(*arguments: str, env: dict[str, str]) -> tuple[int, str]:
    process = start(*arguments, env=env)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def one_line(code: int, output: str, message: str) -> None:
    assert code == 2, output
    assert message in output
    assert output.startswith("error: ")
    assert len(output.strip().splitlines()) == 1
