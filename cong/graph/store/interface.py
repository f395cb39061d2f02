"""What every place for finished stages promises; a directory (`Store`) and object storage (`ObjectStore`) keep it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from cong.graph.stage import Stage
from cong.graph.store import lease


class StageStore(ABC):
    """Finished stages, each with its outputs in a directory on this machine."""

    shared: ClassVar[bool]
    """Whether every node sees the same directories."""

    @property
    @abstractmethod
    def root(self) -> Path:
        """The directory on this machine below which stages have theirs."""

    @abstractmethod
    def check(self) -> None:
        """Raise `UserError` when the store is known not to be there; a directory can be made."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the root and show that it can be written; raise `UserError` when it cannot, or has no MiB left."""

    @abstractmethod
    def free_bytes(self) -> int:
        """Return the free space on the disk of the root."""

    def directory(self, stage: Stage) -> Path:
        """Return the directory of a stage, whether or not it exists."""
        return self.root / stage.name / stage.slug

    def is_complete(self, stage: Stage) -> bool:
        """Tell whether the stage's outputs are there, are whole and belong to this very fingerprint."""
        return self.fault(stage) is None

    def faults(self, stages: Iterable[Stage]) -> dict[str, str]:
        """Return by fingerprint why stages cannot be used, of those that cannot."""
        return {stage.fingerprint: fault for stage in stages if (fault := self.fault(stage)) is not None}

    @abstractmethod
    def fault(self, stage: Stage) -> str | None:
        """Return why the stage cannot be used, or None when it can."""

    @abstractmethod
    def generation(self, stage: Stage) -> str | None:
        """Return a digest of what a finished stage holds, None while it is not finished.

        Equal content has an equal digest, however often it was computed.
        """

    @abstractmethod
    def edition(self, stage: Stage) -> Any:
        """Return what changes whenever the stage is recomputed, None while it is not finished."""

    @abstractmethod
    def record(self, stage: Stage) -> dict[str, Any]:
        """Return the record of a finished stage."""

    @abstractmethod
    def refresh(self, stage: Stage) -> None:
        """Forget what is known of a stage that another process has finished."""

    @abstractmethod
    def hold(self, stage: Stage, *, while_waiting: Callable[[], bool]) -> AbstractContextManager[lease.Lease | None]:
        """Hold the lease of a stage: see `lease.hold`."""

    @abstractmethod
    def claim_place(self, stage: Stage) -> None:
        """Leave in the stage's directory whose it is; call it with the lease held."""

    @abstractmethod
    def publish(self, stage: Stage, record: dict[str, Any], *, check: Callable[[], None] = lambda: None) -> None:
        """Write the record, then `_SUCCESS`: from here on the stage is complete. `check` may raise before that."""

    @abstractmethod
    def discard(self, stage: Stage, *, but: tuple[str, ...] = ()) -> None:
        """Move what a stage's directory holds aside, but for names that begin as one of `but`."""

    @abstractmethod
    def fetch(self, stages: Iterable[Stage]) -> None:
        """Bring the files of finished stages into their directories, where they are already unless they are remote."""

    @abstractmethod
    def fetch_small(self, stage: Stage) -> None:
        """Bring the small files of a stage that was just finished, such as its curves."""

    @abstractmethod
    def share(self, path: Path, *, name: str | None = None) -> None:
        """Let other machines see what is no stage: a report, or under another name the record of a run."""

    @abstractmethod
    def mirror(self) -> None:
        """Bring what `cong status` reads."""


def stale(stage: Stage, manifest: dict[str, Any], *, generation: Callable[[Stage], str | None]) -> Stage | None:
    """Return an input that has other content by now than the one that a finished stage was made from."""
    # Older versions kept nothing of the inputs, and an input that is not there may come out the same again.
    used = manifest.get("inputs", {})
    for item in stage.inputs:
        before, now = used.get(item.fingerprint), generation(item) if used else None
        if before and now and before != now:
            return item
    return None
