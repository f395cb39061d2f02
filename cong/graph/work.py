"""How much a stage takes: `Work` is estimated before it runs, `Usage` is what it used. Every stage says both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Work:
    """What stages take together."""

    gpu_seconds: float = 0.0
    disk_bytes: float = 0.0
    requests: int = 0
    """Questions to judges over HTTP."""
    stages: int = 1

    @property
    def gpu_hours(self) -> float:
        """Return the hours of one GPU."""
        return self.gpu_seconds / 3600

    def __add__(self, other: "Work") -> "Work":
        return Work(
            gpu_seconds=self.gpu_seconds + other.gpu_seconds,
            disk_bytes=self.disk_bytes + other.disk_bytes,
            requests=self.requests + other.requests,
            stages=self.stages + other.stages,
        )


LITTLE = Work()
"""Of a stage that takes seconds or minutes on CPUs, and writes rows or numbers."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a finished stage used beside its time."""

    tokens: int = 0
    """Generated, scored by a model or trained on; a training counts prompt and response in every epoch."""
    tokens_per_second: float | None = None
    judge_tokens: int = 0
    dollars: float | None = None
    """What the answers of judges cost when they were made; None where there is no price."""

    @classmethod
    def of_tokens(cls, results: Mapping[str, Any]) -> "Usage":
        """Return the usage of a stage whose results hold `tokens` and `tokens_per_second`."""
        return cls(tokens=results.get("tokens", 0), tokens_per_second=results.get("tokens_per_second"))
