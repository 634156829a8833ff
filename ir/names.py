"""Names for writing: every value's hint made unique, the interface left as it is.

A name is unique among all names of its graph and of the graphs around it, which is what ONNX asks; bodies side by side
(the branches of an If) may use the same names. Linear in the size of the graph, and the same names on every call.
Names that are unique already do not change.
"""

from __future__ import annotations

from collections.abc import Iterator

from .graph import Graph, Node, Output, Value

WHOLE = frozenset(
    {
        "CausalConvWithState", "DynamicQuantizeLinear", "If", "LinearAttention", "Loop", "Scan", "SequenceMap", "Split",
        "StringSplit", "TopK",
    }
)  # fmt: skip
"""Operators that may give several outputs, none of which may be left out."""


def unique_names(graph: Graph) -> dict[Value | Output, str]:
    """The name of every value and of every output of `graph` and of its bodies; functions are graphs of their own.

    Inputs keep their names. A value that its own graph makes and returns has the name of the first output that returns
    it. Where `names[output] != names[output.value]`, or the value belongs to a graph around, an `Identity` has to stand
    between the two. An optional output of a node that has neither a hint nor a reader is named `""`, which is how ONNX
    leaves it out, unless the node would then have no named output at all. Other values without a hint are named
    after their operator. Inputs and outputs of bodies are renamed where a graph around uses their name.
    """
    names: dict[Value | Output, str] = {}
    _Namer(names).name(graph)
    return names


def second_names(graph: Graph) -> dict[Node, str]:
    """New names for the nodes of `graph`, bodies apart, whose name a node before them has; runtimes refuse such pairs.

    A new name is no other node's either. Empty where all names differ.
    """
    seen: set[str] = set()
    repeated: list[Node] = []
    for node in graph:
        if node.name in seen:
            repeated.append(node)
        elif node.name:
            seen.add(node.name)
    if not repeated:
        return {}
    namer = _Namer({})
    namer.taken |= seen
    names = {}
    for node in repeated:
        names[node] = namer.fresh(node.name)
        namer.taken.add(names[node])
    return names


class _Namer:
    def __init__(self, names: dict[Value | Output, str]) -> None:
        self.names = names
        self.taken: set[str] = {""}
        self.counts: dict[str, int] = {}

    def name(self, graph: Graph) -> None:
        names, taken = self.names, self.taken
        mine: list[str] = []

        def give(item: Value | Output, name: str) -> None:
            names[item] = name
            taken.add(name)
            mine.append(name)

        for value in graph.inputs:
            give(value, self.fresh(value.name) if value.name in taken else value.name)
        for output in graph.outputs:
            value = output.value
            own = names.get(value) if value.graph is graph else None
            if own is not None and (own == output.name or (value.is_input and value.name == output.name)):
                names[output] = names[value]
                continue
            give(output, self.fresh(output.name) if output.name in taken else output.name)
            if value not in names and value.graph is graph:
                names[value] = names[output]
        late: list[Value] = []
        for value in _made(graph):
            if value not in names:
                if value.name in taken:
                    late.append(value)
                else:
                    give(value, value.name)
        for value in late:
            if value.name or not _left_out(value, names):
                give(value, self.fresh(value.name or _word(value)))
            else:
                names[value] = ""
        for node in graph:
            if node.attributes:
                for body in node.bodies:
                    self.name(body)
        taken.difference_update(mine)

    def fresh(self, hint: str) -> str:
        """`hint`, or the first `hint_1`, `hint_2`, ... that is not taken."""
        hint = hint or "value"
        if hint not in self.taken:
            return hint
        count = self.counts.get(hint, 0) + 1
        while f"{hint}_{count}" in self.taken:
            count += 1
        self.counts[hint] = count
        return f"{hint}_{count}"


def _made(graph: Graph) -> Iterator[Value]:
    yield from graph.constants
    for node in graph:
        yield from node.outputs


def _left_out(value: Value, names: dict[Value | Output, str]) -> bool:
    """Whether an unnamed value may stay unnamed: nothing reads it, its operator may lack it (a Split without one of its
    parts ends ONNX Runtime's process), and its node has another output with a name."""
    node = value.producer
    if node is None or value.uses or (node.op in WHOLE and not node.domain):
        return False
    return any(other.name or other.uses for other in node.outputs if other is not value)


def _word(value: Value) -> str:
    return "constant" if value.producer is None else value.producer.op.lower()
