"""The tensors that a model stores, and how many parameters each of them holds."""

from __future__ import annotations

from collections.abc import Iterator

from .graph import Graph
from .node import Node, Value
from .tensor import FileTensor, SparseTensor, Tensor
from .types import DType


def stored_values(model: Graph) -> Iterator[Value]:
    """Every value with stored data, in bodies and functions too: constants, defaults of inputs, outputs of Constant."""
    functions = (inner for function in model.functions.values() for inner in function.graph.graphs())
    for graph in (*model.graphs(), *functions):
        yield from graph.constants
        yield from (value for value in graph.inputs if value.default is not None)
        yield from (node.output for node in graph if node.op == "Constant" and not node.domain)


def tensor_of(value: Value) -> Tensor | None:
    """The stored data behind a value, if any."""
    if value.constant is not None or value.default is not None:
        return value.constant or value.default
    node = value.producer
    if node is not None and node.op == "Constant" and not node.domain:
        for attribute in node.attributes.values():
            if isinstance(attribute.value, Tensor):
                return attribute.value
    return None


def stored_files(model: Graph) -> set[str]:
    """The files that the stored data of a model lies in, external data and what was left in the model's own file."""
    tensors = [tensor_of(value) for value in stored_values(model)]
    parts = [part for t in tensors for part in ((t.values, t.indices) if isinstance(t, SparseTensor) else (t,))]
    return {part.source.path for part in parts if isinstance(part, FileTensor)}


def parameters(value: Value, tensor: Tensor) -> int:
    """How many parameters a stored tensor holds: its elements if it is a weight, else 0.

    Weights are float tensors, integer tensors of 8 bits or less, and 32-bit biases of quantized layers. Scalars, scales
    and zero points, running statistics of BatchNormalization, bounds, pads, shapes and indices are none.
    """
    if not tensor.shape or not value.uses:
        return 0
    roles = [(user, index) for user, index in value.uses if isinstance(user, Node)]
    if roles and all(index in _NO_WEIGHT.get(user.op, ()) for user, index in roles):
        return 0
    wide = tensor.dtype.is_integer and tensor.dtype.bits > 8
    if wide and not any((user.op, index) in _BIAS for user, index in roles):
        return 0
    if tensor.dtype in (DType.BOOL, DType.STRING):
        return 0
    for user, index in roles:
        if user.op == "MatMulNBits" and index == 1:
            return user.get_int("K") * user.get_int("N")
    return tensor.size


_QLINEAR = (1, 2, 4, 5, 6, 7)
_NO_WEIGHT: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (3, 4),
    "Clip": (1, 2),
    "ConvInteger": (2, 3),
    "DequantizeLinear": (1, 2),
    "Dropout": (1, 2),
    "DynamicQuantizeMatMul": (2, 3),
    "MatMulInteger": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "MatMulNBits": (2, 3),
    "OneHot": (1, 2),
    "Pad": (1, 2, 3),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QLinearAdd": _QLINEAR,
    "QLinearConv": _QLINEAR,
    "QLinearMatMul": _QLINEAR,
    "QLinearMul": _QLINEAR,
    "QuantizeLinear": (1, 2),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
}
"""Inputs that hold no weights, by operator."""

_BIAS = frozenset((("DequantizeLinear", 0), ("QLinearConv", 8), ("QGemm", 6)))
