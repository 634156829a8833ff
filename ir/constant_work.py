"""What a model computes from its constants alone: ONNX Runtime does, once, whenever the model is opened.

`clean` leaves it as it is where it takes too much (`ir.allowance`); then a model of a few bytes asks for any number of
products, and of bytes that live as long as the session.
"""

from __future__ import annotations

import math

from ..errors import TargetError
from .allowance import MACS, Effort
from .graph import Graph
from .macs import macs
from .node import Value
from .ops import RANDOM
from .shapes.infer import Inference
from .types import DType

_LONGER = frozenset({"StringConcat"})
"""Operators whose strings are longer than any that they read."""


def check_constant_work(graph: Graph, inference: Inference) -> None:
    """Raises `TargetError` where what follows from the constants of `graph` takes far more than `clean`
    would compute."""
    most = Effort(2 * Effort.of(graph).bytes, 32 * MACS)
    longest: dict[Value, int] = {}  # of what is known before the model runs: bytes of its longest string, 1 for numbers
    size = products = 0
    for node in graph:
        if node.op in RANDOM or (node.attributes and node.bodies) or node.op in ("QuantizeLinear", "DequantizeLinear"):
            continue
        lengths = [_length(value, longest) for value in node.inputs if value is not None]
        if not all(lengths):
            continue
        length = sum(lengths) if node.op in _LONGER else max(lengths, default=1)
        shapes = [None if value is None else _sizes(value, inference) for value in (*node.inputs, *node.outputs)]
        for value, shape in zip(node.outputs, shapes[len(node.inputs) :], strict=True):
            longest[value] = length
            size += math.prod(shape or ()) * (value.dtype.numpy.itemsize if value.dtype else 1) * length
        products += macs(node, shapes[: len(node.inputs)], shapes[len(node.inputs) :])
        if size > most.bytes or products > most.macs:
            raise TargetError(
                f"up to value '{node.output.name}' the model computes {size} bytes and {products} products from its "
                "constants alone when it is run"
            )


def _length(value: Value, longest: dict[Value, int]) -> int:
    """0 for what is not known before the model runs."""
    if value.constant is None:
        return longest.get(value, 0)
    if value.constant.dtype is not DType.STRING:
        return 1
    return max((len(text) for text in value.constant.numpy().reshape(-1).tolist()), default=0) or 1


def _sizes(value: Value, inference: Inference) -> tuple[int, ...] | None:
    shape = inference.shape(value)
    return None if shape is None else tuple(size if isinstance(size, int) else 1 for size in shape)
