"""Codes, scales and biases that the file stores packed, as the constants that they stand for.

    f(c1, ..., cn), read by a quantized operator   ->   constant

`packing.py` and the target `onnx` store them in few bytes, behind operators that a runtime folds as it loads the model;
`clean` leaves these alone, since the constants are larger. Who reads the numbers themselves wants them written out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...ir.chance import RANDOM
from ...ir.graph import Graph, Node, Value
from ...ir.types import DType
from ..clean.evaluate import Unknown, evaluate
from ..clean.rewriter import is_plain
from .spread import QOPERATORS

READERS = frozenset({"DequantizeLinear", "QuantizeLinear", *QOPERATORS})
Array = NDArray[np.generic]


def unpack(graph: Graph) -> int:
    """Write out all that quantized operators of `graph` read and that follows from constants; returns how many values
    there were."""
    known: dict[Value, Array | None] = {}
    count = 0
    for node in tuple(graph):
        if node.op not in READERS:
            continue
        for value in node.inputs:
            if value is None or value.constant is not None or _known(value, known) is None:
                continue
            array = known[value]
            assert array is not None
            value.replace_uses(graph.constant(np.ascontiguousarray(array).reshape(array.shape), value.name))
            count += 1
    if count:
        graph.sweep()
    return count


def _known(value: Value, known: dict[Value, Array | None]) -> Array | None:
    if value not in known:
        if value.constant is not None:
            known[value] = np.asarray(value.constant.numpy())
        else:
            made = _made(value.producer, known)
            if made is None:
                known[value] = None
            else:
                known.update(made)
    return known[value]


def _made(node: Node | None, known: dict[Value, Array | None]) -> dict[Value, Array] | None:
    """The outputs of a node that reads nothing but what is known."""
    if node is None or not node.inputs or not is_plain(node) or node.op in RANDOM | READERS:
        return None
    inputs = [None if value is None else _known(value, known) for value in node.inputs]
    if any(array is None and value is not None for array, value in zip(inputs, node.inputs, strict=True)):
        return None
    assert node.graph is not None
    try:
        arrays = evaluate(node, inputs, node.graph.opset())
    except Unknown:
        return None
    typed = zip(node.outputs, arrays, strict=True)
    return {value: array for value, array in typed if value.dtype in (None, DType.of(array.dtype))}
