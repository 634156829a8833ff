"""A user's own function over an onnx-graphsurgeon graph, run as a pass: `path/to/file.py:function`.

The function takes a `gs.Graph` and returns one (or `None` after editing it in place), so what was written for
onnx-graphsurgeon runs unchanged.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING, ClassVar

from ..errors import SpecError, nearest
from .base import Context, Pass, Report

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from ..ir.graph import Graph


class _Source(importlib.machinery.SourceFileLoader):
    """Runs a file as it is now: bytecode kept of it is told by its length and second, which an edit may leave."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    """The same of the modules that it imports: none is kept, so the next process reads them, too, as they are then."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@dataclass(frozen=True, slots=True)
class FunctionPass(Pass):
    """Runs `function` of the file `path`. What it changes is its author's business, so the guard leaves it alone."""

    name: ClassVar[str] = "function"

    path: str
    function: str

    @property
    def spec(self) -> str:
        return f"{self.path}:{self.function}"

    def requires(self, graph: Graph, ctx: Context) -> None:
        self._load()

    def run(self, graph: Graph, ctx: Context) -> Report:
        from ..ir.onnx.surgeon import from_surgeon, to_surgeon
        from ..ir.text.dump import dump

        report = Report()
        before = dump(graph)
        surgeon = to_surgeon(graph)
        with _no_bytecode():
            result = self._load()(surgeon)
        graph.become(from_surgeon(surgeon if result is None else result, graph))
        if dump(graph) != before:
            report.rewrote(self.function)
        else:
            report.notes.append(f"{self.spec} changed nothing")
        return report

    def _load(self) -> Callable[[gs.Graph], gs.Graph | None]:
        if not os.path.isfile(self.path):
            raise SpecError(f"there is no file '{self.path}' to take '{self.function}' from")
        loader = _Source("optc_user_pass", self.path)
        module_spec = importlib.util.spec_from_file_location("optc_user_pass", self.path, loader=loader)
        if module_spec is None or module_spec.loader is None:
            raise SpecError(f"'{self.path}' cannot be imported as Python")
        module = importlib.util.module_from_spec(module_spec)
        try:
            with _no_bytecode():
                module_spec.loader.exec_module(module)
        except Exception as error:
            raise SpecError(f"'{self.path}' fails on import: {type(error).__name__}: {error}") from error
        function = getattr(module, self.function, None)
        if not callable(function):
            functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
            raise SpecError(f"'{self.path}' has no function '{self.function}'.{nearest(self.function, functions)}")
        chosen: Callable[[gs.Graph], gs.Graph | None] = function
        return chosen
