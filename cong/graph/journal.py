"""Files through which a running stage speaks: live curves and progress.

The stage's processes, on whatever node, only append to files in the stage's directory. Who wants to know (the terminal,
`cong status`, the tracker) reads them. So a tracker that is away cannot disturb the work.
"""

import dataclasses
import json
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAILURE = ".failure.json"


def append_metrics(path: Path, step: int, **metrics: float) -> None:
    """Append one point, `{"step": 10, "time": ..., "loss": 1.2}`, as a line of JSON; one process writes a file."""
    line = json.dumps({"step": step, "time": round(time.time(), 3), **metrics})
    with path.open("a") as file:
        file.write(line + "\n")


def read_metrics(path: Path, *, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Return the points after byte `offset`, and the offset to go on from; a half-written line is left for later.

    A file that was rewritten since, because its stage went on from a checkpoint, is read from its beginning.
    """
    if not path.exists():
        return [], 0
    with path.open("rb") as file:
        file.seek(max(offset - 1, 0))
        # Where an earlier reading ended, a line did; behind the end of a shorter file there is nothing.
        if offset and file.read(1) != b"\n":
            offset = 0
            file.seek(0)
        data = file.read()
    end = data.rfind(b"\n") + 1
    found = [_point(line) for line in data[:end].splitlines()]
    return [point for point in found if point is not None], offset + end


def _point(line: bytes) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None  # A killed process leaves half a line, and the next one's first line is appended to it.


def truncate_metrics(path: Path, *, last_step: int) -> None:
    """Drop the points after `last_step`: a training that continues from a checkpoint writes them again."""
    points, _ = read_metrics(path)
    kept = [json.dumps(point) + "\n" for point in points if point["step"] <= last_step]
    if path.exists():
        replace_text(path, "".join(kept))


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stage is: `done` of `total` `unit`s, `started` at a Unix time."""

    done: float
    total: float
    unit: str
    started: float
    updated: float
    first: float
    """What was done already when this process began: a resumed stage's speed counts from there."""
    tokens: int | None = None
    """New tokens, those of unfinished units among them; None for what decodes none, and until decoding begins."""
    finished_tokens: int = 0
    """Those of the units that are done."""
    first_tokens: int = 0
    """What `first` is to `done`."""

    @property
    def rate(self) -> float:
        """Units per second since the process began."""
        return (self.done - self.first) / max(self.updated - self.started, 1e-6)

    @property
    def token_rate(self) -> float:
        """Tokens per second since the process began to decode."""
        return ((self.tokens or 0) - self.first_tokens) / max(self.updated - self.started, 1e-6)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds to the end, None while nothing is known.

        With tokens, the units that are not done are taken to be as long as the mean of those that are: before one is,
        their length is unknown.
        """
        if self.tokens is None:
            return (self.total - self.done) / self.rate if self.rate > 0 else None
        if self.finished_tokens <= 0 or self.token_rate <= 0:
            return None
        return (self.total - self.done) * self.finished_tokens / max(self.done, 1) / self.token_rate


def write_progress(
    path: Path, *, done: float, total: float, unit: str, tokens: int | None = None, finished_tokens: int = 0
) -> None:
    """Replace the progress file. The first call after a start gives `done` and `tokens` as they were found.

    Speeds count anew from the first call with `tokens`: before, models are loaded.
    """
    now = time.time()
    progress = Progress(
        done=done, total=total, unit=unit, started=now, updated=now, first=done,
        tokens=tokens, finished_tokens=finished_tokens, first_tokens=tokens or 0,
    )  # fmt: skip
    before = read_progress(path)
    if before is not None and _continues(before, progress):
        began = {"started": before.started, "first": before.first, "first_tokens": before.first_tokens}
        progress = dataclasses.replace(progress, **began)
    replace_text(path, json.dumps(dataclasses.asdict(progress)))


def _continues(before: Progress, now: Progress) -> bool:
    """Return whether both are of one process: a later one may lack what a killed one had not finished."""
    same = (before.unit, before.total, before.tokens is None) == (now.unit, now.total, now.tokens is None)
    return same and before.done <= now.done and (before.tokens or 0) <= (now.tokens or 0)


def read_progress(path: Path) -> Progress | None:
    """Return the progress, or None when none was written."""
    try:
        return Progress(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None


def write_failure(directory: Path, error: str) -> None:
    """Leave in a stage's directory why it failed; the next attempt takes it away."""
    directory.mkdir(parents=True, exist_ok=True)
    replace_text(directory / FAILURE, json.dumps({"error": error, "when": time.time()}))


def read_failure(directory: Path) -> str | None:
    """Return why a stage's last attempt failed, or None."""
    try:
        return json.loads((directory / FAILURE).read_text())["error"]
    except FileNotFoundError:
        return None


def open_to_group(path: Path) -> None:
    """Let a file or directory have the permissions that the umask leaves: some libraries give them to the owner only.

    What belongs to somebody else is left as it is.
    """
    status = path.stat()
    wanted = (0o777 if path.is_dir() else 0o666) & ~_umask()
    if status.st_uid == os.geteuid() and status.st_mode & wanted != wanted:
        path.chmod(stat.S_IMODE(status.st_mode) | wanted)


def _umask() -> int:
    try:
        text = Path("/proc/self/status").read_text()
        return int(text.partition("\nUmask:")[2].split()[0], 8)
    except (OSError, IndexError, ValueError):
        # There is no other way to ask: for a moment other threads make private files.
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
