"""Which axis of a graph input counts samples.

Nothing in ONNX marks the batch, so it is read from the names and places of the dynamic dimensions:

1. a dimension whose symbol is a usual name of the batch (`N`, `B`, `batch`, `batch_size`, …) is the batch, wherever it
   stands;
2. else the first dimension, where it is dynamic: its symbol, if it has one, is the batch in every other input too.

An input without such a dimension has no batch axis: every sample of it is one whole tensor of the graph's shape, and
models with such inputs are fed one sample at a time.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ..errors import DataError
from ..ir.graph import Graph, Value
from ..ir.types import TensorType

_BATCH_NAME = re.compile(r"n|b|bs|.*batch.*", re.IGNORECASE)


def fed_inputs(graph: Graph) -> tuple[Value, ...]:
    """The inputs that samples must give: those without a default.

    Raises `DataError` where one of them is not a tensor of known element type.
    """
    inputs = tuple(value for value in graph.inputs if value.default is None)
    for value in inputs:
        if not isinstance(value.type, TensorType):
            raise DataError(f"input '{value.name}' is not a tensor; only tensors can be fed from samples")
    return inputs


def batch_axes(graph: Graph) -> dict[str, int | None]:
    """Input name -> the axis that counts samples, or `None`; see the rules above."""
    inputs = fed_inputs(graph)
    symbols = {d for v in inputs for d in v.shape or () if isinstance(d, str) and _BATCH_NAME.fullmatch(d)}
    if not symbols:
        symbols = {v.shape[0] for v in inputs if v.shape and isinstance(v.shape[0], str)}
    axes = {value.name: _axis(value, symbols) for value in inputs}
    if all(axis is None for axis in axes.values()):
        axes.update((v.name, 0) for v in inputs if v.shape is None or v.shape[:1] == (None,))
    return axes


def _axis(value: Value, symbols: Collection[object]) -> int | None:
    if value.shape is None:
        return None
    for axis, dim in enumerate(value.shape):
        if dim in symbols:
            return axis
    # An unnamed dimension that leads is the batch of a model that names none of its dimensions here.
    return 0 if value.shape and value.shape[0] is None else None
