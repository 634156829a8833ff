"""What a rule of the verifier is: a name, what it holds, and a check that yields what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..graph import Function, Graph, Node, Output, Value


@dataclass(frozen=True, slots=True)
class CheckedGraph:
    """One graph to check: of `model` itself (`function` is `None`) or of one of its functions, outermost or a body."""

    graph: Graph
    model: Graph
    function: Function | None

    @property
    def outermost(self) -> bool:
        return self.graph.parent is None


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong and what to do about it, and the node and value that it is about, where it is about one."""

    text: str
    node: Node | None = None
    value: Value | Output | None = None


@dataclass(frozen=True, slots=True)
class VerifierRule:
    """`check` yields the faults of one graph; the graphs around and inside it get their own turn."""

    name: str
    meaning: str
    check: Callable[[CheckedGraph], Iterator[Fault]]
