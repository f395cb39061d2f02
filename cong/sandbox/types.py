"""What a sandbox is given, and what it answers."""

from dataclasses import dataclass
from typing import Literal

Reason = Literal["passed", "assertion", "exception", "timeout", "memory", "output", "killed", "refused"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use. Time is the program's own CPU time; `wall_seconds` ends one that sleeps."""

    cpu_seconds: int = 4
    wall_seconds: float = 20.0
    memory_bytes: int = 512 << 20
    disk_bytes: int = 8 << 20
    files: int = 128
    open_files: int = 64
    threads: int = 16
    output_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name} = {value} is not above 0")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a program under its tests.

    `assertion`: a test failed; `exception`: the program, or a test of it, raised; `timeout`, `memory`, `output`: it
    went over a limit; `refused`: it tried what only an escape would; `killed`: it ended itself or crashed.
    """

    reason: Reason
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether every test was run and held."""
        return self.reason == "passed"
