"""One change to the structure of a graph, and a kind of such changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ...ir.graph import Graph, Node, Value
from ...ir.ops import LAYERS
from ..base import Context, Detail


@dataclass(frozen=True, slots=True, eq=False)
class Edit(ABC):
    """`out` is the value whose readers will read something else, or what is computed otherwise; `nodes` go. With its
    node, `number` finds the edit again in a copy of the graph."""

    number: int
    out: Value
    nodes: tuple[Node, ...]

    @property
    def node(self) -> Node:
        """The node that names the edit."""
        assert self.out.producer is not None
        return self.out.producer

    @property
    def layers(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.op in LAYERS)

    @abstractmethod
    def apply(self, graph: Graph) -> frozenset[str]:
        """Edit `graph`. Returns the names of values that are now asked for something else, or are computed otherwise:
        layers that end in them, or read them, are to be fitted anew."""


class EditKind(ABC):
    """Edits of one kind, and the words for them."""

    verb: ClassVar[str]
    """What became of a part of the cost, as `removed`."""
    none: ClassVar[str]
    """Why a model has no such edit."""
    worth: ClassVar[float] = 0.02
    """The least share of the cost that an edit must save to be tried."""

    @abstractmethod
    def edits(self, graph: Graph) -> list[Edit]:
        """The edits that `graph` allows, in its order."""

    @abstractmethod
    def at(self, node: Node, number: int) -> Edit | None:
        """The edit of a node as it now is; `None` where there is none (any more)."""

    def together(self, named: dict[str, Edit]) -> list[tuple[str, ...]]:
        """Edits that are worth trying as one, besides each alone."""
        return []

    def left(self, graph: Graph, name: str, edit: Edit, ctx: Context, of: str) -> float:
        """What stands for the nodes of an edit costs as a share of them, measured where `of` is latency."""
        return 0.0

    def details(self, edit: Edit) -> dict[str, Detail]:
        """What is told of an edit that was made."""
        return {"layers": len(edit.layers)}

    def named(self, graph: Graph) -> dict[str, Edit]:
        """The edits by their names, each of which is one's alone."""
        named: dict[str, Edit] = {}
        for edit in self.edits(graph):
            name, count = edit.node.label, 1
            while name in named:
                count += 1
                name = f"{edit.node.label} #{count}"
            named[name] = edit
        return named
