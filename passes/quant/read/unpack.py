"""Codes, scales and biases that the file stores packed, as the constants that they stand for.

    f(c1, ..., cn), read by a quantized operator   ->   constant

`packing.py` and the target `onnx` store them in few bytes, behind operators that a runtime folds as it loads the model;
`clean` leaves these alone, since the constants are larger. Who reads the numbers themselves wants them written out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....ir.allowance import Effort
from ....ir.graph import Graph, Node, Value
from ....ir.ops import RANDOM
from ....ir.types import DType
from ...clean.evaluate import evaluate
from ...clean.one_node import Unknown
from ...clean.rewriter import is_plain
from .spread import QOPERATORS

READERS = frozenset({"DequantizeLinear", "QuantizeLinear", *QOPERATORS})
Array = NDArray[np.generic]


def unpack(graph: Graph) -> int:
    """Write out all that quantized operators of `graph` read and that follows from constants; returns how many values
    there were."""
    arrays: dict[Value, Array] = {}
    effort = Effort.of(graph)
    count = 0
    for node in _leading_to_readers(graph):
        arrays.update(_made(node, arrays, effort) or {})
    for node in tuple(graph):
        for value in node.inputs if node.op in READERS else ():
            if value is not None and value in arrays and value.constant is None:
                array = arrays[value]
                value.replace_uses(graph.constant(np.ascontiguousarray(array).reshape(array.shape), value.name))
                count += 1
    if count:
        graph.sweep()
    return count


def _leading_to_readers(graph: Graph) -> list[Node]:
    """The nodes that what quantized operators read is made of, in order."""
    wanted: set[Node] = set()
    for node in reversed(tuple(graph)):
        if node.op in READERS or node in wanted:
            wanted.update(v.producer for v in node.inputs if v is not None and v.producer is not None)
    return [node for node in graph if node in wanted]


def _made(node: Node, evaluated: dict[Value, Array], effort: Effort) -> dict[Value, Array] | None:
    """The outputs of a node that reads nothing but what is known."""
    if not node.inputs or not is_plain(node) or node.op in RANDOM | READERS:
        return None
    inputs: list[Array | None] = []
    for value in node.inputs:
        constant = None if value is None else value.constant
        if value is not None and value not in evaluated and (constant is None or not constant.fits):
            return None
        inputs.append(None if value is None else constant.numpy() if constant is not None else evaluated[value])
    assert node.graph is not None
    try:
        arrays = evaluate(node, inputs, node.graph.opset(), effort)
    except Unknown:
        return None
    typed = zip(node.outputs, arrays, strict=True)
    return {value: array for value, array in typed if value.dtype in (None, DType.of(array.dtype))}
