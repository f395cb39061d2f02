"""How much a stage takes, estimated before it runs: every stage says it of itself, in `Stage.work`."""

from dataclasses import dataclass


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
