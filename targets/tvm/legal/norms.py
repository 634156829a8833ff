"""Norms that onnx has no bodies for, as the operators that they are defined by.

GlobalLpPool                  y = (sum over the image of |x|^p)^(1/p)
SimplifiedLayerNormalization  y = x / sqrt(mean(x^2) + epsilon) * scale: what ONNX Runtime calls RMSNormalization,
                              in ONNX's own domain
"""

from __future__ import annotations

from ....ir.node import Node, Value
from ....ir.types import DType
from .writer import Writer

_AXES_ARE_INPUTS = {"ReduceSum": 13}
_SINCE = 18
"""The version from which on the other reductions take their axes as an input."""


def reduced(write: Writer, op: str, x: Value, axes: list[int]) -> Value:
    if write.graph.opset() < _AXES_ARE_INPUTS.get(op, _SINCE):
        return write.add(op, x, axes=axes, keepdims=1)
    return write.add(op, x, write.ints(*axes), keepdims=1)


def lift_global_lp_pool(node: Node) -> bool:
    """Put the sum of a GlobalLpPool in its place; whether the rank of what it reads is known."""
    x = node.inputs[0]
    if x is None or x.shape is None or x.dtype is None:
        return False
    write, axes, power = Writer(node), list(range(2, len(x.shape))), node.get_int("p", 2)
    if power in (1, 2):
        result = reduced(write, f"ReduceL{power}", x, axes)
    else:
        powers = write.add("Pow", write.add("Abs", x), write.constant(power, x.dtype.numpy))
        result = write.add("Pow", reduced(write, "ReduceSum", powers, axes), write.constant(1 / power, x.dtype.numpy))
    return write.put(result)


def lift_simplified_layer_normalization(node: Node) -> bool:
    """Put the norm in its place; whether the rank of what it reads is known."""
    x, scale = node.inputs[0], node.inputs[1]
    if x is None or x.shape is None or x.dtype is None or scale is None:
        return False
    write, axis = Writer(node), node.get_int("axis", -1) % len(x.shape)
    wide = x.dtype in (DType.FLOAT16, DType.BFLOAT16)
    one = write.add("Cast", x, to=int(DType.FLOAT)) if wide else x
    dtype = DType.FLOAT if wide else x.dtype
    mean = reduced(write, "ReduceMean", write.add("Mul", one, one), list(range(axis, len(x.shape))))
    epsilon = write.constant(node.get_float("epsilon", 1e-5), dtype.numpy)
    deviation = write.add("Sqrt", write.add("Add", mean, epsilon))
    normal = write.add("Div", one, deviation)
    if wide:
        normal = write.add("Cast", normal, to=int(x.dtype))
    results = [write.add("Mul", normal, scale)]
    if any(value.uses for value in node.outputs[1:]):
        results.append(write.add("Reciprocal", deviation))
    return write.put(*results)


LIFTED = {
    "GlobalLpPool": lift_global_lp_pool,
    "SimplifiedLayerNormalization": lift_simplified_layer_normalization,
}
