"""The student as what can be trained: its own graph where it is of floats, the float twin of a quantized one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.graph import Graph, Node, Value
from ..base import Context, Detail
from .parameters import Parameter, parameters
from .quantized.simulated import Twin, twin_of


@dataclass(frozen=True, slots=True)
class Student:
    """`answers` is the graph that is judged and comes out; `twin` the floats behind it, where it is quantized."""

    answers: Graph
    twin: Twin | None = None

    @property
    def graph(self) -> Graph:
        """The graph whose parameters a gradient moves."""
        return self.answers if self.twin is None else self.twin.graph

    def parameters(self) -> list[Parameter]:
        return parameters(self.answers) if self.twin is None else self.twin.moving

    def users(self, parameter: Parameter) -> Sequence[Node]:
        """The nodes of `answers` that compute with a parameter."""
        return parameter.value.users if self.twin is None else self.twin.users(parameter)

    def write(self) -> None:
        """Let `answers` compute with the parameters as they are now."""
        if self.twin is not None:
            self.twin.write()

    def restore(self) -> None:
        """Give `answers` the constants that it came with; those of floats are the parameters themselves."""
        if self.twin is not None:
            self.twin.restore()

    def details(self, value: Value) -> dict[str, Detail]:
        """What a report tells of the layer whose weight is the parameter `value`."""
        return {} if self.twin is None else self.twin.details(value)


def student_of(graph: Graph, ctx: Context) -> Student:
    return Student(graph, twin_of(graph, saturating=ctx.target.saturating_int8, seed=ctx.seed))
