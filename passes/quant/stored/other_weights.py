"""Weights that no kernel reads as codes: stored in int8 and computed with in float, wherever they stand.

    weight = Cast(codes) * scale

is an expression over constants, which runtimes fold when they load the model (`storage.py`). So are stored

    weights inside the bodies of If, Loop and Scan, and outer ones that a body reads
    weights of products that `layers` refuses: of rank 3 and more, on the left, transposed inputs, scaled Gemms, Einsum
    constants that weights are computed from (a convolution modulated by a style)
    weights in double precision, which no integer kernel stands in for
    matrices of operators of other domains (Attention, FusedMatMul, EmbedLayerNormalization of ONNX Runtime)

There is a scale for each slice along the axis, or the first and another axis, that rounds the numbers best. Not done:
fewer than `LEAST` weights, what does not fit in eight bits (`WORST`), and what is kept by name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node, Value
from ....ir.origin import Origin
from ....ir.types import DType
from ...base import Report
from ..layers import is_quantized
from ..qdq.packing import dequantized
from ..scheme import Schemes, float_reason

CONTRIB = "com.microsoft"
LEAST = 1024
WORST = 1e-3
"""Share of a weight's power that rounding may take; a scale a channel takes about a hundredth of it."""
FEWEST = 16
"""Elements that share a scale, at least."""

_COMPUTING = frozenset({
    "Add", "Cast", "Concat", "Div", "Expand", "Flatten", "Identity", "Mul", "Neg", "Reshape", "Slice", "Squeeze", "Sub",
    "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that make one weight of another."""

_MOVING = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})

_PLACES: Mapping[tuple[str, str], tuple[int, ...]] = {
    **dict.fromkeys([("", "Conv"), ("", "ConvTranspose")], (1,)),
    **dict.fromkeys([("", "LSTM"), ("", "GRU"), ("", "RNN")], (1, 2)),
    **dict.fromkeys([("", "MatMul"), ("", "Gemm")], (0, 1)),
    ("", "Einsum"): (0, 1, 2, 3),
    **dict.fromkeys([(CONTRIB, op) for op in ("FusedMatMul", "FusedMatMulActivation", "FusedGemm")], (0, 1)),
    **dict.fromkeys([(CONTRIB, op) for op in ("Attention", "PackedAttention", "DecoderMaskedSelfAttention")], (1,)),
    **dict.fromkeys([(CONTRIB, op) for op in ("FusedConv", "NhwcFusedConv", "GemmFastGelu")], (1,)),
    (f"{CONTRIB}.nchwc", "Conv"): (1,),
    (CONTRIB, "LongformerAttention"): (1, 5),
    (CONTRIB, "EmbedLayerNormalization"): (2, 3, 4),
    (CONTRIB, "MoE"): (2, 4, 6),
}
"""The inputs of each operator that may be weights."""


@dataclass(frozen=True, slots=True)
class Coded:
    """`scale` broadcasts against `codes`; `error` is the share of the power that is off."""

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    error: float


def store_others(graph: Graph, refused: Iterable[Node], schemes: Schemes, report: Report) -> set[Node]:
    """Store what the nodes `refused` read, and nodes of other domains and Einsum; returns those that were changed.

    `report` is told of each.
    """
    encodings: dict[Value, Coded | None] = {}
    changed: set[Node] = set()
    others = (node for node in graph.walk() if node.domain or node.op == "Einsum")
    for node in dict.fromkeys([*refused, *others]):
        if (node.domain, node.op) not in _PLACES or float_reason(schemes, node) or is_quantized(node):
            continue
        errors = []
        for weight in dict.fromkeys(_weights(node)):
            if weight not in encodings:
                encodings[weight] = _encoded(weight)
            coded = encodings[weight]
            if coded is not None:
                errors.append(coded.error)
        if errors:
            changed.add(node)
            report.done(node.label, node.op, bits=8, activations="stored", weight_error=round(max(errors), 9))
    for weight, coded in encodings.items():
        if coded is not None:
            _store(graph, weight, coded)
    return changed


def _weights(node: Node) -> Iterator[Value]:
    """The constants that the weights of a node are, or are computed from."""
    through = _COMPUTING if node.op in ("Conv", "ConvTranspose") else _MOVING
    for index in _PLACES.get((node.domain, node.op), ()):
        value = node.input(index)
        if value is not None:
            yield from _constants(value, through)


def _constants(value: Value, through: Collection[str]) -> Iterator[Value]:
    """The large constants that `value` is made of by the operators `through`."""
    stack, seen = [value], {value}
    while stack:
        value = stack.pop()
        constant = value.constant
        if constant is not None:
            matrix = sum(size > 1 for size in constant.shape) >= 2
            if (
                constant.dtype in (DType.FLOAT, DType.DOUBLE)
                and constant.size >= LEAST
                and not constant.repeats
                and matrix
                and _read_by_weights(value)
            ):
                yield value
        maker = value.producer
        if maker is not None and maker.op in through and not maker.domain:
            fresh = [v for v in maker.inputs if v is not None and v not in seen]
            stack += fresh
            seen.update(fresh)


def _read_by_weights(value: Value) -> bool:
    """Whether no reader of a constant is one of the layers that have codes of their own, or its own output."""
    return all(isinstance(user, Node) and user.op not in ("QuantizeLinear", "Gather") for user, _ in value.uses)


def _encoded(weight: Value) -> Coded | None:
    numbers = np.asarray(weight.numpy(), np.float32)
    if not np.isfinite(numbers).all():
        return None
    axes = range(numbers.ndim)
    kept = [{k} for k in axes] + [{0, k} for k in axes if k and numbers.ndim > 2]
    best: Coded | None = None
    for axis in kept:
        if math.prod(numbers.shape[k] for k in axis) * FEWEST > numbers.size:
            continue
        scale = np.abs(numbers).max(axis=tuple(k for k in axes if k not in axis), keepdims=True) / np.float32(127.0)
        scale = np.where(scale > 0.0, scale, np.float32(1.0)).astype(np.float32)
        codes = np.clip(np.rint(numbers / scale), -127, 127).astype(np.int8)
        power = float(np.sum(np.square(numbers, dtype=np.float64)))
        error = float(np.sum(np.square(numbers - codes * scale, dtype=np.float64))) / max(power, 1e-300)
        if best is None or error < 0.9 * best.error:
            best = Coded(codes, scale, error)
    return best if best is not None and best.error <= WORST else None


def _store(graph: Graph, weight: Value, coded: Coded) -> None:
    """Let all readers read the weight from its codes, in the graph that it stands in: the runtime folds them there, and
    lays out weights of convolutions that are constants of the same graph."""
    home = weight.graph or graph
    first = next(iter(home), None)
    origin = Origin.merge([user.origin for user, _ in weight.uses if isinstance(user, Node)], "quant")
    weight.replace_uses(dequantized(home, coded.codes, coded.scale, weight, origin, first, type=weight.type))
