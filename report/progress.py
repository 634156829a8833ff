"""Telling how far a build is: one bar a pass with the time left on a terminal, one line a pass in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from ..passes.base import Pass, Progress, Report
from ..passes.observers import Observer
from ..passes.pipeline import spec

if TYPE_CHECKING:
    from ..ir.graph import Graph


class TerminalProgress(Progress, Observer):
    """Draws one bar for the pass that runs, or for what runs outside of passes, and wipes it when it is over.

    A stretch of work inside a pass fills that pass's bar; between two of them it only shows that the pass goes on. Use
    as a context manager, and as an observer of the passes.
    """

    passive = True

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[share]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._title = ""
        self._bar: TaskID | None = None
        self._busy = False

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def before(self, position: int, one: Pass, graph: Graph) -> None:
        self._title = escape(spec(one))
        self._replace(self._title, None)

    def after(self, position: int, one: Pass, graph: Graph, report: Report) -> None:
        self._remove()

    @contextmanager
    def task(self, title: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        if self._busy:  # a stretch within a stretch: the outer one tells the time
            yield lambda steps: None
            return
        within = self._bar is not None
        bar = self._replace(f"{self._title}: {title}" if within else title, total)
        self._busy = True
        try:
            yield lambda steps: self._advance(bar, steps, total)
        finally:
            self._busy = False
            if within:
                self._replace(self._title, None)
            else:
                self._remove()

    def _replace(self, title: str, total: float | None) -> TaskID:
        self._remove()
        self._bar = self._bars.add_task(title, total=total, share="")
        return self._bar

    def _remove(self) -> None:
        if self._bar is not None:
            self._bars.remove_task(self._bar)
            self._bar = None

    def _advance(self, bar: TaskID, steps: float, total: float | None) -> None:
        self._bars.advance(bar, steps)
        if total:
            done = next(task.completed for task in self._bars.tasks if task.id == bar)
            self._bars.update(bar, share=f"{100 * done / total:>3.0f} %")


class PassLines(Observer):
    """One line a pass as it ends, for logs that cannot redraw; none for a lossless pass that had nothing to do."""

    passive = True

    def __init__(self, console: Console) -> None:
        self._console = console

    def after(self, position: int, one: Pass, graph: Graph, report: Report) -> None:
        if not one.lossy and not report.changed:
            return
        self._console.print(f"{spec(one)}: {report.summary} ({len(graph)} nodes)", markup=False, soft_wrap=True)
