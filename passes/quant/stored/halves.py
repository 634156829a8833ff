"""Weights stored as float16 or bfloat16 and computed with in float (`weights=float16`, `weights=bfloat16`).

    weight = Cast(half)

is an expression over constants, which runtimes fold when they load the model: half the file at the speed of float. Not
computed with in 16 bits: x86 kernels have no float16 arithmetic and cast around every op, which is slower than float.

float16 keeps 11 bits of a weight between 6e-5 and 65504; what is larger would become infinite, so such a weight stays
float. bfloat16 keeps 8 bits over the whole range of float.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Graph, Node, Value
from ....ir.origin import Origin
from ....ir.types import DType
from ...base import Report
from ...walk.linear import Linear
from ..numbers.weights import weight_error

LARGEST = float(np.finfo(np.float16).max)


def store_halves(graph: Graph, layers: Sequence[Linear], dtype: DType, report: Report) -> None:
    """Let every layer read its weight from 16-bit floats; layers that share a weight share the Cast."""
    casts: dict[Value, Value] = {}
    first = next(iter(graph))
    for layer in layers:
        weight = layer.weight
        numbers = np.asarray(weight.numpy(), np.float32)
        if dtype is DType.FLOAT16 and np.abs(numbers).max(initial=0.0) > LARGEST:
            report.skipped(layer.name, layer.op, f"a weight is larger than float16 can hold ({LARGEST:g})")
            continue
        if weight not in casts:
            casts[weight] = cast_half(graph, numbers.astype(dtype.numpy), weight, layer.node.origin, first)
        half = layer.kernel_rows(numbers.astype(dtype.numpy).astype(np.float32))
        error = weight_error(layer.kernel_rows(), half)
        layer.node.set_input(1, casts[weight])
        report.done(layer.name, layer.op, bits=16, weight_error=round(error, 9))


def cast_half(graph: Graph, half: NDArray[np.generic], weight: Value, origin: Origin, before: Node | None) -> Value:
    """What is read in the place of `weight`, of which `half` is stored."""
    return graph.add(
        "Cast", [graph.constant(half, weight.name)], {"to": int(DType.FLOAT)}, outputs=[weight.name],
        types=[weight.type], origin=Origin.merge([origin], "quant"), before=before,
    ).output  # fmt: skip
