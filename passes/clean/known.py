"""What shape inference knows: types on the values, and vectors of integers computed from shapes."""

from __future__ import annotations

import numpy as np

from ...ir.graph import Graph
from ...ir.node import Value
from .fill import Array


def integers(graph: Graph) -> dict[Value, Array]:
    """Infer types anew, and return the vectors of integers (rank 0 or 1) all of whose elements are known.

    Only what follows from the inputs counts: recorded and declared shapes of what nodes make are an exporter's
    word, which no runtime checks.
    """
    from ...ir.shapes.infer import infer

    arrays: dict[Value, Array] = {}
    declared = [output.type for output in graph.outputs]
    for output in graph.outputs:
        output.type = None
    try:
        inference = infer(graph, fresh=True)
    finally:
        for output, type in zip(graph.outputs, declared):
            output.type = type
    for value, elements in inference.elements.items():
        if value.dtype is None or value.static_shape is None or value.constant is not None:
            continue
        if all(isinstance(e, int) for e in elements):
            arrays[value] = np.asarray(elements, value.dtype.numpy).reshape(value.static_shape)
    return arrays
