"""What a person sees while trials run: bars with the time left in a terminal, lines in a log, or nothing."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from etude.study.engines.trial import Task


class Display(Protocol):
    """Told what happens."""

    def begin(self, total: int, stored: int) -> None:
        """How many trials there are, and how many of them are stored already."""

    def started(self, task: Task) -> None:
        """A trial starts."""

    def progress(self, task: Task, label: str, done: int, total: int | None) -> None:
        """How far a loop of a trial is."""

    def finished(self, task: Task, seconds: float) -> None:
        """A trial is finished and kept."""

    def skipped(self, task: Task, why: str) -> None:
        """A trial needs something that is not there."""

    def failed(self, task: Task, error: str) -> None:
        """A trial raised or its worker died."""

    def notice(self, text: str) -> None:
        """Something a person should know."""


def _name(task: Task) -> str:
    cell = ", ".join(str(value) for value in task.cell.values())
    return f"{task.measurement}{f' ({cell})' if cell else ''}, seed {task.seed}"


class Quiet:
    """Says nothing, but passes notices on as warnings."""

    def begin(self, total: int, stored: int) -> None:
        """See `Display`."""

    def started(self, task: Task) -> None:
        """See `Display`."""

    def progress(self, task: Task, label: str, done: int, total: int | None) -> None:
        """See `Display`."""

    def finished(self, task: Task, seconds: float) -> None:
        """See `Display`."""

    def skipped(self, task: Task, why: str) -> None:
        """See `Display`."""

    def failed(self, task: Task, error: str) -> None:
        """See `Display`."""

    def notice(self, text: str) -> None:
        """See `Display`."""
        warnings.warn(text, stacklevel=2)


class Lines(Quiet):
    """One line an event, for logs."""

    def begin(self, total: int, stored: int) -> None:
        """See `Display`."""
        self._total, self._done = total, stored
        self.notice(f"{total} trials, {stored} of them stored")

    def finished(self, task: Task, seconds: float) -> None:
        """See `Display`."""
        self._done += 1
        self.notice(f"[{self._done}/{self._total}] {_name(task)}: {seconds:.1f} s")

    def skipped(self, task: Task, why: str) -> None:
        """See `Display`."""
        self.notice(f"{_name(task)}: skipped. {why}")

    def failed(self, task: Task, error: str) -> None:
        """See `Display`."""
        self.notice(f"{_name(task)}: failed. {error}")

    def notice(self, text: str) -> None:
        """See `Display`."""
        print(text, file=sys.stderr, flush=True)


class Bars(Quiet):
    """A bar for the whole run and one for each trial that runs, with the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._of: dict[int, Any] = {}
        self._inner: dict[int, float] = {}

    def begin(self, total: int, stored: int) -> None:
        """See `Display`."""
        if stored:
            self.notice(f"{stored} of {total} trials are stored already")
        # The bar counts what is to be run, so that the time left is that of the work left.
        self._all = self.bars.add_task("[bold]trials", total=total - stored)
        self._ended = 0

    def started(self, task: Task) -> None:
        """See `Display`."""
        self._of[task.id] = self.bars.add_task(f"  {_name(task)}", total=None)

    def progress(self, task: Task, label: str, done: int, total: int | None) -> None:
        """See `Display`."""
        self.bars.update(self._of[task.id], description=f"  {_name(task)}: {label}", completed=done, total=total)
        if total:
            self._inner[task.id] = done / total
            self._overall()

    def _overall(self) -> None:
        self.bars.update(self._all, completed=round(self._ended + sum(self._inner.values()), 2))

    def _end(self, task: Task) -> None:
        self.bars.remove_task(self._of.pop(task.id))
        self._inner.pop(task.id, None)
        self._ended += 1
        self._overall()

    def finished(self, task: Task, seconds: float) -> None:
        """See `Display`."""
        self._end(task)

    def skipped(self, task: Task, why: str) -> None:
        """See `Display`."""
        self._end(task)
        self.notice(f"{_name(task)}: skipped. {why}")

    def failed(self, task: Task, error: str) -> None:
        """See `Display`."""
        self._end(task)
        self.notice(f"{_name(task)}: failed. {error}")

    def notice(self, text: str) -> None:
        """See `Display`."""
        self._console.print(text, markup=False, highlight=False)


@contextlib.contextmanager
def display(progress: bool | None) -> Iterator[Display]:
    """The display that fits where the program runs.

    Args:
        progress: None for bars in a terminal or notebook and nothing elsewhere; True for bars or, where there is no
            terminal, lines; False for nothing.
    """
    notebook = "ipykernel" in sys.modules
    terminal = sys.stderr.isatty() or notebook
    if progress is False or (progress is None and not terminal):
        yield Quiet()
    elif not terminal:
        yield Lines()
    else:
        bars = Bars()
        with bars.bars:
            yield bars
