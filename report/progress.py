"""Telling how far a build is: bars with the time left on a terminal, one line a pass in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from ..passes.base import Pass, Progress, Report
from ..passes.observers import Observer
from ..passes.pipeline import spec

if TYPE_CHECKING:
    from ..ir.graph import Graph


class TerminalProgress(Progress):
    """Draws every running task as one bar, and wipes it when it is over. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    @contextmanager
    def task(self, title: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        task = self._bars.add_task(title, total=total)
        try:
            yield lambda steps: self._bars.advance(task, steps)
        finally:
            self._bars.remove_task(task)


class PassLines(Observer):
    """One line a pass as it ends, for logs that cannot redraw; none for a lossless pass that had nothing to do."""

    passive = True

    def __init__(self, console: Console) -> None:
        self._console = console

    def after(self, position: int, one: Pass, graph: Graph, report: Report) -> None:
        if not one.lossy and not report.changed:
            return
        self._console.print(f"{spec(one)}: {report.summary} ({len(graph)} nodes)", markup=False, soft_wrap=True)
