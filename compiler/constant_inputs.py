"""Weights that are inputs of the model, too: those of IR version 4 and later that a caller may override."""

from __future__ import annotations

from ..ir.graph import Graph
from ..ir.stored import parameters


def freeze(graph: Graph) -> None:
    """Make constants of the inputs that have defaults; they are no inputs any more."""
    for index, value in reversed(tuple(enumerate(graph.inputs))):
        if value.default is not None:
            constant = graph.constant(value.default, value.name)
            constant.doc, constant.metadata = value.doc, value.metadata
            value.replace_uses(constant)
            graph.remove_input(index)


def open_weights(graph: Graph) -> list[str]:
    """A note where weights are inputs, which no pass may touch."""
    weights = [v for v in graph.inputs if v.default is not None and parameters(v, v.default)]
    if not weights:
        return []
    are = (
        "1 weight is an input with a default"
        if len(weights) == 1
        else f"{len(weights)} weights are inputs with defaults"
    )
    rest = "it a constant" if len(weights) == 1 else "them constants"
    return [f"{are}, which a caller may override; --freeze makes {rest}"]
