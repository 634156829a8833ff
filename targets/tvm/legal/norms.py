"""Norms that onnx has no bodies for, as the operators that they are defined by.

GlobalLpPool                  y = (sum over the image of |x|^p)^(1/p)
SimplifiedLayerNormalization  y = x / sqrt(mean(x^2) + epsilon) * scale: what ONNX Runtime calls RMSNormalization,
                              in ONNX's own domain
"""

from __future__ import annotations

import numpy as np

from ....ir.node import Node, Value
from ....ir.types import DType

_AXES_ARE_INPUTS = {"ReduceSum": 13}
_SINCE = 18
"""The version from which on the other reductions take their axes as an input."""


class Writer:
    """Adds nodes in front of one that they stand for."""

    def __init__(self, node: Node) -> None:
        assert node.graph is not None
        self.node, self.graph = node, node.graph

    def add(self, op: str, *inputs: Value, **attributes: int | list[int]) -> Value:
        return self.graph.add(op, inputs, attributes, origin=self.node.origin, before=self.node).output

    def number(self, value: float, dtype: DType) -> Value:
        return self.graph.constant(np.array(value, dtype.numpy))

    def reduce(self, op: str, x: Value, axes: list[int]) -> Value:
        if self.graph.opset() < _AXES_ARE_INPUTS.get(op, _SINCE):
            return self.add(op, x, axes=axes, keepdims=1)
        return self.add(op, x, self.graph.constant(np.array(axes, np.int64)), keepdims=1)


def lift_global_lp_pool(node: Node) -> bool:
    """Put the sum of a GlobalLpPool in its place; whether the rank of what it reads is known."""
    x = node.inputs[0]
    if x is None or x.shape is None or x.dtype is None:
        return False
    write, axes, power = Writer(node), list(range(2, len(x.shape))), node.get_int("p", 2)
    if power in (1, 2):
        result = write.reduce(f"ReduceL{power}", x, axes)
    else:
        powers = write.add("Pow", write.add("Abs", x), write.number(power, x.dtype))
        result = write.add("Pow", write.reduce("ReduceSum", powers, axes), write.number(1 / power, x.dtype))
    put(node, [result])
    return True


def lift_simplified_layer_normalization(node: Node) -> bool:
    """Put the norm in its place; whether the rank of what it reads is known."""
    x, scale = node.inputs[0], node.inputs[1]
    if x is None or x.shape is None or x.dtype is None or scale is None:
        return False
    write, axis = Writer(node), node.get_int("axis", -1) % len(x.shape)
    wide = x.dtype in (DType.FLOAT16, DType.BFLOAT16)
    one = write.add("Cast", x, to=int(DType.FLOAT)) if wide else x
    dtype = DType.FLOAT if wide else x.dtype
    mean = write.reduce("ReduceMean", write.add("Mul", one, one), list(range(axis, len(x.shape))))
    epsilon = write.number(node.get_float("epsilon", 1e-5), dtype)
    deviation = write.add("Sqrt", write.add("Add", mean, epsilon))
    normal = write.add("Div", one, deviation)
    if wide:
        normal = write.add("Cast", normal, to=int(x.dtype))
    results = [write.add("Mul", normal, scale)]
    if any(value.uses for value in node.outputs[1:]):
        results.append(write.add("Reciprocal", deviation))
    put(node, results)
    return True


def put(node: Node, results: list[Value]) -> None:
    """Put `results` in the place of the node's outputs, and the node away."""
    assert node.graph is not None
    for old, new in zip(node.outputs, results):
        new.type = old.type
        old.replace_uses(new)
    node.graph.remove(node)


LIFTED = {
    "GlobalLpPool": lift_global_lp_pool,
    "SimplifiedLayerNormalization": lift_simplified_layer_normalization,
}
