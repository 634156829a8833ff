"""What the forward pass has to say besides its answer: further outputs that gradient rules read.

MaxPool names its maxima, LayerNormalization returns its statistics; both cost the runtime nothing. Recurrent and fused
operators are written out in simple ones, whose rules do the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..graph import Graph, Node, Value

_OUTPUTS = {"MaxPool": 2, "LayerNormalization": 3}
"""Operator -> outputs that it needs for its gradient."""


def prepare(graph: Graph, nodes: Iterable[Node], kept: Collection[Value]) -> None:
    """Rewrite `nodes` of `graph`, all to be differentiated. Values in `kept` stay themselves."""
    for node in nodes:
        count = _OUTPUTS.get(node.op, 0) if not node.domain else 0
        if len(node.outputs) < count:
            node.add_outputs(count - len(node.outputs))
            # Even where nothing reads it, the answer itself is no optional output.
            node.output.name = node.output.name or "answer"
