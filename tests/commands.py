"""The command line as a process of its own, which is forked: it need not import the large libraries."""

import os
from pathlib import Path

from forked import Forked, run_command_line

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "experiments" / "quickstart.py"
EXPERIMENT = ROOT / "tests" / "numbers_experiment.py"
SECRET = "do-not-write-me-down"


def start(*arguments: str, env: dict[str, str]) -> Forked:
    return Forked(run_command_line, *arguments, env=os.environ | env, cwd=ROOT)


def cong(*arguments: str, env: dict[str, str]) -> tuple[int, str]:
    """Return the exit code, and what was written to standard output and standard error."""
    process = start(*arguments, env=env)
    return process.wait(timeout=300), process.output()


def one_line(code: int, output: str, message: str) -> None:
    assert code == 2, output
    assert message in output
    assert output.startswith("error: ")
    assert len(output.strip().splitlines()) == 1
