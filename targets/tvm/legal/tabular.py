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
from .norms import reduced
from .writer import Writer

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


def _scaler(node: Node) -> bool:
    write = Writer(node)
    x = _floats(node, write)
    if x is None:
        return False
    offset, scale = node.get_floats("offset", (0.0,)), node.get_floats("scale", (1.0,))
    return write.put(write.add("Mul", write.add("Sub", x, write.floats(offset)), write.floats(scale)))


def _imputer(node: Node) -> bool:
    x, values = node.input(0), node.get_floats("imputed_value_floats")
    if x is None or x.dtype is not DType.FLOAT or not values:
        return False
    write, nothing = Writer(node), node.get_float("replaced_value_float", 0.0)
    absent = write.add("IsNaN", x) if math.isnan(nothing) else write.add("Equal", x, write.floats(nothing))
    return write.put(write.add("Where", absent, write.floats(values), x))


def _binarizer(node: Node) -> bool:
    x = node.input(0)
    if x is None or x.dtype is not DType.FLOAT:
        return False
    write = Writer(node)
    above = write.add("Greater", x, write.floats(node.get_float("threshold")))
    return write.put(write.add("Cast", above, to=int(DType.FLOAT)))


def _normalizer(node: Node) -> bool:
    write = Writer(node)
    x = _floats(node, write)
    if x is None:
        return False
    norm = {"L1": "ReduceL1", "L2": "ReduceL2", "MAX": "ReduceMax"}[node.get_string("norm", "MAX")]
    size, zero = reduced(write, norm, x, [-1]), write.floats(0.0)
    divisor = write.add("Where", write.add("Equal", size, zero), write.floats(1.0), size)
    return write.put(write.add("Div", x, divisor))


def _linear_regressor(node: Node) -> bool:
    write, x = Writer(node), node.input(0)
    targets, weights = node.get_int("targets", 1), node.get_floats("coefficients")
    plain = node.get_string("post_transform", "NONE") == "NONE"
    if x is None or x.dtype is not DType.FLOAT or x.shape is None or len(x.shape) != 2 or not plain or not weights:
        return False
    weight = write.floats(np.reshape(weights, (targets, -1)).T)
    result = write.add("MatMul", x, weight)
    intercepts = node.get_floats("intercepts")
    return write.put(write.add("Add", result, write.floats(intercepts)) if intercepts else result)


def _array_feature_extractor(node: Node) -> bool:
    x, columns = node.input(0), node.input(1)
    if x is None or columns is None or x.dtype is DType.STRING or x.shape is None or len(x.shape) < 2:
        return False
    write = Writer(node)
    row = write.reshape(columns, -1)
    return write.put(write.add("Gather", x, row, axis=-1))


_LIFTED: dict[str, Callable[[Node], bool]] = {
    "ArrayFeatureExtractor": _array_feature_extractor,
    "Binarizer": _binarizer,
    "Imputer": _imputer,
    "LinearRegressor": _linear_regressor,
    "Normalizer": _normalizer,
    "Scaler": _scaler,
}
