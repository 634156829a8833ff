"""Names to values while a model is read.

A body sees the names of the graphs around it, and its own before theirs. ONNX wants every value made before it is read;
files do not always keep to it, so a name that nothing has made yet gets a stand-in, which the value replaces when the
graph is complete.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import ModelError
from ..graph import Graph, Node, Value
from ..printable import has_control


@dataclass(slots=True)
class Scope:
    """The names that nodes of one graph see; `later` holds stand-ins for those read before anything made them."""

    graph: Graph
    outer: Scope | None
    names: dict[str, Value] = field(default_factory=dict)
    later: dict[str, Value] = field(default_factory=dict)
    moved: bool = False

    def find(self, name: str) -> Value:
        scope: Scope | None = self
        while scope is not None:
            value = scope.names.get(name)
            if value is not None:
                return value
            scope = scope.outer
        return self.later.setdefault(name, Value(as_name(name)))

    def define(self, name: str, value: Value) -> None:
        if not as_name(name):
            raise ModelError(f"graph {self.graph.name!r}: an input or initializer has no name")
        if name in self.names:
            raise ModelError(f"graph {self.graph.name!r}: value {name!r} is defined twice; names must be unique")
        self.names[name] = value

    def close(self) -> None:
        """Put the values that were made later in the place of their stand-ins; hand the rest to the graph around.

        Raises `ModelError` for a name that nothing makes.
        """
        for name, stand_in in self.later.items():
            value = self.names.get(name)
            if value is not None:
                stand_in.replace_uses(value)
                self.moved = True
            elif self.outer is not None:
                outer = self.outer.later.setdefault(name, stand_in)
                stand_in.replace_uses(outer)
            elif stand_in.uses:
                user, index = next(iter(stand_in.uses))
                if isinstance(user, Node):
                    output = user.outputs[0].name if user.outputs else ""
                    where = f"node {user.name or output!r} ({user.op}) reads {name!r} as input {index}"
                else:
                    where = f"output {index} is {name!r}"
                raise ModelError(
                    f"graph {self.graph.name!r}: {where}, but no node, input or initializer makes it; "
                    f"the model is broken, export it again"
                )
        if self.outer is not None:
            self.outer.moved = self.outer.moved or self.moved
        elif self.moved:
            self.graph.sort()


def as_name(name: str) -> str:
    """A name, which has to be UTF-8, for it cannot be written otherwise, and without control characters."""
    if not isinstance(name, str):
        raise ModelError(f"name {name!r} is not UTF-8; give it another one and export the model again")
    if has_control(name):
        raise ModelError(f"name {name!r} holds a control character; give it another one and export the model again")
    return name
