"""What a person sees while stages run: bars on a terminal, plain lines in a log."""

import sys
import time
from pathlib import Path

from cong.graph.execute import LOG
from cong.graph.journal import Progress, read_progress
from cong.graph.runner import first_line
from cong.graph.stage import Stage
from cong.graph.store import StageStore

LINE_SECONDS = 15.0


class Terminal:
    """Observer of a run. On a terminal it shows a bar per running stage; elsewhere it prints a line now and then."""

    def __init__(self, store: StageStore, *, total: int | None) -> None:
        self._store = store
        self._total, self._done = total, 0
        self._started: dict[str, float] = {}
        self._last_line = time.monotonic()
        self._bars = _Bars(self._total) if sys.stdout.isatty() else None

    def started(self, stage: Stage) -> None:
        """Remember when the stage was given to a process."""
        self._started[stage.fingerprint] = time.monotonic()

    def finished(self, stage: Stage, outcome: str) -> None:
        """Print one line for the stage."""
        self._done += 1
        seconds = time.monotonic() - self._started[stage.fingerprint]
        what = f"{seconds:6.1f} s" if outcome == "made" else "made by another process"
        of = f"/{self._total}" if self._total else ""
        self._end(stage, f"[{self._done:>3}{of}] {stage.title}  {what}")

    def failed(self, stage: Stage, error: BaseException) -> None:
        """Print what failed, and where its log is."""
        log = self._store.directory(stage) / LOG
        where = f"\n       log: {log}" if log.exists() else ""
        self._end(stage, f"FAILED {stage.title}: {first_line(error)}{where}")

    def tick(self, running: list[Stage]) -> None:
        """Show how far the running stages are."""
        states = [(stage, self._progress(stage)) for stage in running]
        if self._bars:
            self._bars.update(states, done=self._done)
        elif time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            for stage, progress in states:
                print(f"          {stage.title}  {describe_progress(progress)}", flush=True)

    def close(self) -> None:
        """Take the bars away."""
        if self._bars:
            self._bars.stop()

    def _progress(self, stage: Stage) -> Progress | None:
        return read_progress(Path(self._store.directory(stage)) / "progress.json")

    def _end(self, stage: Stage, line: str) -> None:
        if self._bars:
            self._bars.end(stage, line)
        else:
            print(line, flush=True)


class _Bars:
    def __init__(self, total: int | None) -> None:
        from rich import progress

        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=24),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            transient=True,
        )
        self._all = self._bars.add_task("stages", total=total, rate="")
        self._tasks: dict = {}
        self._bars.start()

    def update(self, states: list[tuple[Stage, Progress | None]], *, done: int) -> None:
        self._bars.update(self._all, completed=done)
        for stage, progress in states:
            task = self._tasks.get(stage.fingerprint)
            if task is None:
                task = self._tasks[stage.fingerprint] = self._bars.add_task(stage.title, total=None, rate="")
            if progress:
                self._bars.update(task, total=progress.total, completed=progress.done, rate=_beside_bar(progress))

    def end(self, stage: Stage, line: str) -> None:
        task = self._tasks.pop(stage.fingerprint, None)
        if task is not None:
            self._bars.remove_task(task)
        self._bars.console.print(line, highlight=False, markup=False)

    def stop(self) -> None:
        self._bars.stop()


def _beside_bar(progress: Progress) -> str:
    return ", ".join([_speed(progress), *_left(progress)])


def describe_progress(progress: Progress | None) -> str:
    """Return share done, speed and time left as text; where tokens are decoded, they come first."""
    if progress is None:
        return "starting"
    share = f"{100 * progress.done / max(progress.total, 1):.0f} %"
    done = f"{progress.done:g} of {progress.total:g} {progress.unit} ({share})"
    said = [done, _speed(progress)] if progress.tokens is None else [_speed(progress), done]
    return ", ".join([*said, *_left(progress)])


def _speed(progress: Progress) -> str:
    if progress.tokens is None:
        return f"{progress.rate:.1f} {progress.unit}/s"
    return f"{progress.tokens:,} tokens, {_rounded(progress.token_rate)} tok/s"


def _left(progress: Progress) -> list[str]:
    left = progress.seconds_left
    if left is None:
        return []
    return [f"{left:.0f} s left" if progress.tokens is None else f"about {_span(left)} left"]


def _span(seconds: float) -> str:
    """Return a time span as exactly as an estimate deserves: `40 s`, `9 min`, `2.5 h`."""
    unit, size = next((one for one in (("h", 3600), ("min", 60)) if seconds >= one[1]), ("s", 1))
    return f"{_rounded(seconds / size)} {unit}"


def _rounded(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}".removesuffix(".0")
