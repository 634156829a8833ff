"""What distillation may change: constants of the graph that its layers compute with.

    weights      of Conv, ConvTranspose, Gemm, MatMul, and of recurrent cells
    biases       of those, and constants of more than one element that are added
    affine       scales and shifts of normalisations, slopes, and constants of more than one element that multiply
    codes, scales  of quantized values (`quantized/simulated.py`)

Zeros that pruning made stay zeros: a weight tensor that holds any keeps them all (n:m patterns are kept so, too).
Tables that are gathered from, bounds, sizes and the remembered statistics of BatchNormalization are no parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...ir.graph import Graph, Node, Value
from ...ir.ops import LAYERS
from ...ir.types import DType

Kind: TypeAlias = Literal["weight", "bias", "affine", "codes", "scale"]

_PLACES: dict[str, dict[int, Kind]] = {
    **{op: {1: "weight", 2: "bias"} for op in LAYERS},
    "BatchNormalization": {1: "affine", 2: "affine"},
    "GRU": {1: "weight", 2: "weight", 3: "bias"},
    "GroupNormalization": {1: "affine", 2: "affine"},
    "InstanceNormalization": {1: "affine", 2: "affine"},
    "LSTM": {1: "weight", 2: "weight", 3: "bias"},
    "LayerNormalization": {1: "affine", 2: "affine"},
    "PRelu": {1: "affine"},
    "RMSNormalization": {1: "affine"},
    "RNN": {1: "weight", 2: "weight", 3: "bias"},
    "SimplifiedLayerNormalization": {1: "affine"},
}
_EITHER: dict[str, Kind] = {"Add": "bias", "Mul": "affine", "Sub": "bias", "MatMul": "weight", "Gemm": "weight"}
"""Operators that may have their parameter on either side."""


@dataclass(frozen=True, slots=True, eq=False)
class Parameter:
    """A constant of the student. `mask` is 1 where it may change and 0 where it stays zero; `None`: everywhere.
    `bounds` are the least and the greatest number that it may hold; `pace` multiplies the rate."""

    value: Value
    kind: Kind
    mask: NDArray[np.bool_] | None = None
    bounds: tuple[float, float] | None = None
    pace: float = 1.0

    @property
    def size(self) -> int:
        return 0 if self.value.constant is None else self.value.constant.size


def parameters(graph: Graph) -> list[Parameter]:
    """The parameters of `graph` itself, in its order, each once; those of bodies stay as they are."""
    kinds: dict[Value, Kind] = {}
    barred: set[Value] = set()
    for node in graph:
        for value, kind in _read_by(node):
            kinds.setdefault(value, kind)
        barred.update(value for body in (node.captures if node.bodies else ()) for value in (body,))
        if node.op in ("Gather", "QuantizeLinear", "DequantizeLinear"):
            barred.update(value for value in node.inputs if value is not None)
    return [Parameter(v, kind, _mask(v, kind)) for v, kind in kinds.items() if v not in barred]


def _read_by(node: Node) -> Iterator[tuple[Value, Kind]]:
    if node.domain:
        return
    places = dict(_PLACES.get(node.op, {}))
    if node.op in _EITHER:
        places |= {0: _EITHER[node.op], 1: _EITHER[node.op]}
    for index, kind in places.items():
        value = node.input(index)
        if value is None or value.constant is None or value.constant.dtype is not DType.FLOAT or value.is_output:
            continue
        if node.op in ("Add", "Mul", "Sub") and value.constant.size < 2:
            continue
        yield value, kind


def _mask(value: Value, kind: Kind) -> NDArray[np.bool_] | None:
    if kind != "weight":
        return None
    mask = np.asarray(value.numpy()) != 0
    return None if mask.all() else mask
