"""Bytes that one process of a stage needs at its peak, by what they are for."""

from dataclasses import dataclass, replace

GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes of one process at its peak, by what they are for."""

    weights: float
    states: float = 0.0
    """Gradients, optimizer states and master weights."""
    cache: float = 0.0
    """Keys, values, scores and bookkeeping of all slots."""
    working: float = 0.0
    """What lives within a pass or a step: activations, logits, gathered weights, communication buffers."""
    host: float = 0.0
    """Main memory that offloaded weights and states take, beside the GPU's."""

    @property
    def total(self) -> float:
        """Bytes on the device."""
        return self.weights + self.states + self.cache + self.working

    def over(self, devices: int) -> "Need":
        """Return what each device needs when weights and caches are spread over several."""
        if devices == 1:
            return self
        return replace(self, weights=self.weights / devices, cache=self.cache / devices)

    def __str__(self) -> str:
        beside = f" and {self.host / GB:.1f} GB of main memory" if self.host else ""
        return f"{self.total / GB:.1f} GB{beside}"

    @property
    def parts(self) -> str:
        """What the bytes are for, for a reader: `weights 12.3, cache 12.1, working 2.0`."""
        found = {name: getattr(self, name) / GB for name in ("weights", "states", "cache", "working")}
        return ", ".join(f"{name} {value:.1f}" for name, value in found.items() if value >= 0.05)
