"""Telling how far a build is, on a terminal: one bar a pass with the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from ..passes.base import Pass, Progress, Report
from ..passes.observers import Observer
from ..passes.pipeline import spec
from .amount import amount
from .shown import shown

if TYPE_CHECKING:
    from ..ir.graph import Graph


_NAME, _CELLS = 28, 10
"""Columns of a pass's text and of its bar."""


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
        self._bytes = 0
        self._bar: TaskID | None = None
        self._busy = False

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def before(self, position: int, one: Pass, graph: Graph) -> None:
        if position == 1:
            self._bytes = _stored(graph)
        self._title = shown(spec(one))
        self._replace(self._title, None)

    def after(self, position: int, one: Pass, graph: Graph, report: Report | None) -> None:
        """Leave a line of the pass above the bar: what is left of the bytes, and how long it took."""
        self._remove()
        if report is None or not (one.lossy or report.changed) or self._bars.disable:
            return
        console = self._bars.console
        line = pass_line(spec(one), _stored(graph), self._bytes, report.seconds, ascii_only=console.options.ascii_only)
        console.print(line, markup=False, highlight=False, soft_wrap=True)

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


def pass_line(name: str, size: int, before: int, seconds: float, *, ascii_only: bool = False) -> str:
    """A pass in at most 80 columns: its text, a bar of what is left of the original's bytes, and its seconds."""
    share = size / before if before else 1.0
    full = min(_CELLS, max(0, round(_CELLS * share)))
    filled, empty = ("#", ".") if ascii_only else ("█", "░")
    shown = name if len(name) <= _NAME else f"{name[: _NAME - 3]}..."
    bar = filled * full + empty * (_CELLS - full)
    return f"{shown:<{_NAME}} {bar} {100 * share:3.0f} % of the bytes, {amount(size, 'B')}, {seconds:.1f} s"


def _stored(graph: Graph) -> int:
    """Bytes of the constants of a graph, each once."""
    return sum(value.constant.nbytes for value in graph.constants if value.constant is not None)
