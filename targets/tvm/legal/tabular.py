"""Operators of `ai.onnx.ml` that arithmetic says as well: what prepares the columns of a table, and linear regression.

Scaler                 y = (x - offset) * scale
Imputer                y = value where x is what stands for nothing (NaN, by default), else x
Binarizer              y = 1 where x > threshold, else 0
Normalizer             y = x / norm of its row, and x where that is 0
LinearRegressor        y = x coefficients^T + intercepts
ArrayFeatureExtractor  the columns whose numbers the second operand holds
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ....ir.graph import Graph
from ....ir.node import Node, Value
from ....ir.types import DType
from .norms import Writer, put

DOMAIN = "ai.onnx.ml"


def lift_tabular(graph: Graph) -> int:
    """Put arithmetic in the place of what it can say. How many nodes it was; others are left."""
    return sum(_LIFTED[node.op](node) for node in list(graph) if node.domain == DOMAIN and node.op in _LIFTED)


def _floats(node: Node, write: Writer) -> Value | None:
    """What the node reads, in float; none where its type or rank is not known, or doubles would lose digits."""
    x = node.input(0)
    if x is None or x.shape is None or x.dtype not in (DType.FLOAT, DType.INT32, DType.INT64):
        return None
    return x if x.dtype is DType.FLOAT else write.add("Cast", x, to=int(DType.FLOAT))


def _row(write: Writer, numbers: tuple[float, ...]) -> Value:
    return write.graph.constant(np.array(numbers, np.float32))


def _scaler(node: Node) -> bool:
    write = Writer(node)
    x = _floats(node, write)
    if x is None:
        return False
    offset, scale = node.get_floats("offset", (0.0,)), node.get_floats("scale", (1.0,))
    put(node, [write.add("Mul", write.add("Sub", x, _row(write, offset)), _row(write, scale))])
    return True


def _imputer(node: Node) -> bool:
    x, values = node.input(0), node.get_floats("imputed_value_floats")
    if x is None or x.dtype is not DType.FLOAT or not values:
        return False
    write, nothing = Writer(node), node.get_float("replaced_value_float", 0.0)
    absent = write.add("IsNaN", x) if math.isnan(nothing) else write.add("Equal", x, write.number(nothing, DType.FLOAT))
    put(node, [write.add("Where", absent, _row(write, values), x)])
    return True


def _binarizer(node: Node) -> bool:
    x = node.input(0)
    if x is None or x.dtype is not DType.FLOAT:
        return False
    write = Writer(node)
    above = write.add("Greater", x, write.number(node.get_float("threshold"), DType.FLOAT))
    put(node, [write.add("Cast", above, to=int(DType.FLOAT))])
    return True


def _normalizer(node: Node) -> bool:
    write = Writer(node)
    x = _floats(node, write)
    if x is None:
        return False
    norm = {"L1": "ReduceL1", "L2": "ReduceL2", "MAX": "ReduceMax"}[node.get_string("norm", "MAX")]
    size, zero = write.reduce(norm, x, [-1]), write.number(0.0, DType.FLOAT)
    divisor = write.add("Where", write.add("Equal", size, zero), write.number(1.0, DType.FLOAT), size)
    put(node, [write.add("Div", x, divisor)])
    return True


def _linear_regressor(node: Node) -> bool:
    write, x = Writer(node), node.input(0)
    targets, weights = node.get_int("targets", 1), node.get_floats("coefficients")
    plain = node.get_string("post_transform", "NONE") == "NONE"
    if x is None or x.dtype is not DType.FLOAT or x.shape is None or len(x.shape) != 2 or not plain or not weights:
        return False
    weight = write.graph.constant(np.array(weights, np.float32).reshape(targets, -1).T.copy())
    result = write.add("MatMul", x, weight)
    intercepts = node.get_floats("intercepts")
    put(node, [write.add("Add", result, _row(write, intercepts)) if intercepts else result])
    return True


def _array_feature_extractor(node: Node) -> bool:
    x, columns = node.input(0), node.input(1)
    if x is None or columns is None or x.dtype is DType.STRING or x.shape is None or len(x.shape) < 2:
        return False
    write = Writer(node)
    row = write.add("Reshape", columns, write.graph.constant(np.array([-1], np.int64)))
    put(node, [write.add("Gather", x, row, axis=-1)])
    return True


_LIFTED: dict[str, Callable[[Node], bool]] = {
    "ArrayFeatureExtractor": _array_feature_extractor,
    "Binarizer": _binarizer,
    "Imputer": _imputer,
    "LinearRegressor": _linear_regressor,
    "Normalizer": _normalizer,
    "Scaler": _scaler,
}
