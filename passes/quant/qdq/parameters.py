"""Weights and biases of layers as constants in integer codes.

    source codes -> DequantizeLinear -+
    int8 weight -> DequantizeLinear --+-> layer -> QuantizeLinear -> ...
    int32 bias -> DequantizeLinear ---+         (scale of bias = scale of source * scale of weight)

is the form that runtimes fuse into one integer kernel. Layers that share a weight share its codes.

Where the target's kernels saturate, weights are kept within the pair bound (`weights.py`). That costs most where
neighbours are alike, as the colour channels of an image are. A weight that would lose more than `DEAREST` times its
rounding error to the bound is stored unsigned, with its zero point in the middle: slower to multiply, but exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Node, Value
from ....ir.types import DType
from ...base import Detail, TargetFacts
from ...walk.linear import Linear
from ..numbers.params import QuantParams, limits, shortened
from ..numbers.weights import quantize_paired, quantize_rows, row_importance, weight_error
from ..scheme import Schemes
from .insertion import Insertion
from .packing import store_codes

Energy = Mapping[Node, NDArray[np.float64]]
"""By layer: see `Calibration`."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """What a layer became: the grid of its weight, and its error, a share of the variance of its answer, where the walk
    told, or what rounding the weight adds (`weight_error`)."""

    params: QuantParams
    error: float | None = None
    weight_error: float | None = None

    @property
    def figures(self) -> dict[str, Detail]:
        """What a report says of it."""
        named = {"error": self.error, "weight_error": self.weight_error}
        return {name: round(number, 6) for name, number in named.items() if number is not None}


def encode_weights(
    insertion: Insertion,
    layers: Sequence[Linear],
    energy: Energy,
    target: TargetFacts,
    schemes: Schemes,
) -> dict[Node, Rounded]:
    """Let every layer read codes of its weight; returns what became of each. `energy`: see `Calibration`. Of the layers
    that share a weight the first says how many bits, and whether it has a scale a channel."""
    together: dict[Value, list[Linear]] = {}
    for layer in layers:
        together.setdefault(layer.weight, []).append(layer)
    done: dict[Node, Rounded] = {}
    for weight, users in together.items():
        least = least_scale(insertion, users)
        first, scheme = users[0], schemes[users[0].node]
        codes, params, _ = encode(
            first, importance(first, energy), target, least, per_channel=scheme.per_channel, bits=scheme.bits
        )
        decoded = params.dequantize(codes)
        constant = store_codes(insertion.graph, codes, weight.name, bits=scheme.bits, before=first.node)
        for layer in users:
            node, h = layer.node, importance(layer, energy)
            error = weight_error(layer.kernel_rows(), layer.kernel_rows(decoded), h)
            done[node] = Rounded(params, weight_error=error)
            node.set_input(1, insertion.dequantize(constant, params, before=node, origin=node.origin, hint="weight"))
    return done


def encode_biases(insertion: Insertion, layers: Sequence[Linear], params_of: Mapping[Node, QuantParams]) -> None:
    """Turn every float bias into int32 codes on the grid of the layer's sums. It is much finer than that of the answer:
    of a code, the digits that float16 keeps are enough."""
    for layer in layers:
        node, bias = layer.node, layer.node.input(2)
        if bias is None:
            continue
        numbers = np.broadcast_to(np.asarray(bias.numpy(), np.float64).reshape(-1), (layer.outputs,))
        scale = np.broadcast_to(params_of[node].scale * insertion.input_params(layer).scale, (layer.outputs,))
        params = QuantParams(np.ascontiguousarray(scale, np.float32), 0, DType.INT32, 0, -(2**31) + 1, 2**31 - 1)
        codes = insertion.graph.constant(shortened(params.quantize(numbers)), bias.name)
        node.set_input(2, insertion.dequantize(codes, params, before=node, origin=node.origin, hint="bias"))


def encode(
    layer: Linear,
    importance: NDArray[np.float64] | None,
    target: TargetFacts,
    least: NDArray[np.float64],
    *,
    per_channel: bool = True,
    bits: int = 8,
) -> tuple[NDArray[np.generic], QuantParams, float]:
    """Codes of a layer's weight, in its own layout, their grid, whose scales are at least `least`, and the error
    (`weight_error`).

    Codes of fewer than 8 bits are int8 too, from a shorter range.
    """
    rows, shared, zero = layer.kernel_rows(), not per_channel, 0
    if bits == 8 and target.saturating_int8 and target.activation_dtype is DType.UINT8 and not layer.depthwise:
        codes, scale, zero = quantize_paired(rows, importance=importance, shared=shared, least_scale=least)
    else:
        codes, scale = quantize_rows(
            rows, DType.INT8, importance=importance, shared=shared, least_scale=least, bits=bits
        )
    dtype = DType.UINT8 if zero else DType.INT8
    params = QuantParams(
        np.asarray(scale if per_channel else scale[0]), zero, dtype, layer.axis if per_channel else None, *limits(dtype)
    )
    shifted = (codes.astype(np.int16) + zero).astype(dtype.numpy) if zero else codes
    stored = layer.of_kernel_rows(shifted)
    return stored, params, weight_error(rows, layer.kernel_rows(params.dequantize(stored)), importance)


def importance(layer: Linear, energy: Energy) -> NDArray[np.float64] | None:
    """What errors in the kernel's rows of a layer's weight weigh: `row_importance` of what it reads."""
    return row_importance(energy.get(layer.node), layer.shape, layer.channels)


def least_scale(insertion: Insertion, users: Sequence[Linear]) -> NDArray[np.float64]:
    """The least scale of each channel with which int32 holds the bias of every layer that reads the weight."""
    least = np.zeros(users[0].outputs)
    for layer in users:
        bias = layer.node.input(2)
        if bias is not None:
            numbers = np.abs(np.asarray(bias.numpy(), np.float64)).reshape(-1)
            least = np.maximum(least, 2 * numbers / (float(insertion.input_params(layer).scale) * 2**31))
    return least
