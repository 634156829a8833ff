"""Telling how far a build is in a log, which cannot be redrawn: one line a pass as it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..passes.base import Pass, Report
from ..passes.observers import Observer
from ..passes.pipeline import spec

if TYPE_CHECKING:
    from ..ir.graph import Graph


class PassLines(Observer):
    """Hands on one line a pass as it ends; none for a lossless pass that had nothing to do."""

    passive = True

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def after(self, position: int, one: Pass, graph: Graph, report: Report) -> None:
        if one.lossy or report.changed:
            self._write(f"{spec(one)}: {report.summary} ({len(graph)} nodes)")
