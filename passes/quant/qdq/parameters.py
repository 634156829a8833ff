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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....ir.graph import Value
from ....ir.types import DType
from ...base import TargetFacts
from ..layers import Layer
from ..numbers.params import Grid, limits, shortened
from ..numbers.weights import importance_of, quantize_rows, reduction_rows, squared_error, weight_of_rows
from .insertion import Insertion
from .packing import store_codes

Energy = Mapping[Value, NDArray[np.float64]]

DEAREST = 2.0


@dataclass(frozen=True, slots=True)
class Rounded:
    """What a layer became: the grid of its weight, and its error as a share of the power of its answer."""

    grid: Grid
    error: float


def encode_weights(
    insertion: Insertion,
    layers: Sequence[Layer],
    energy: Energy,
    target: TargetFacts,
    per_channel: Callable[[Layer], bool],
    bits: Callable[[Layer], int],
) -> dict[Layer, Rounded]:
    """Let every layer read codes of its weight; returns what became of each. `energy`: see `Calibration`. Of the layers
    that share a weight the first says how many bits, and whether it has a scale a channel."""
    together: dict[Value, list[Layer]] = {}
    for layer in layers:
        together.setdefault(layer.weight, []).append(layer)
    done: dict[Layer, Rounded] = {}
    for weight, users in together.items():
        least = least_scale(insertion, users)
        first, width = users[0], bits(users[0])
        given = energy.get(first.source)
        codes, grid = encode(first, given, target, least, per_channel=per_channel(first), bits=width)
        constant = store_codes(insertion.graph, codes, weight.name, bits=width, before=first.node)
        for layer in users:
            node = layer.node
            node.set_input(1, insertion.dequantize(constant, grid, before=node, origin=node.origin, hint="weight"))
            done[layer] = Rounded(grid, rounding_error(layer, grid.decode(codes), energy.get(layer.source)))
    return done


def rounding_error(layer: Layer, numbers: NDArray[np.float32], energy: NDArray[np.float64] | None) -> float:
    """What `numbers` in place of a layer's weight add to its answer, as a share of the answer's power.

    sum_d h_d (w_d - numbers_d)^2 over sum_d h_d w_d^2, where h, the mean square of each input, is 1 if it is not known.
    """
    weight = np.asarray(layer.weight.numpy(), np.float32)
    rows = reduction_rows(weight, layer.op, transposed=layer.transposed)
    off = rows - reduction_rows(np.asarray(numbers, np.float32), layer.op, transposed=layer.transposed)
    h = importance_of(layer, energy, rows.shape)
    weigh = np.ones((1, 1)) if h is None else h
    power = np.sum(np.square(rows, dtype=np.float64) * weigh)  # squares of large weights
    return float(np.sum(np.square(off, dtype=np.float64) * weigh) / max(float(power), 1e-30))


def encode_biases(insertion: Insertion, layers: Sequence[Layer], grids: Mapping[Layer, Grid]) -> None:
    """Turn every float bias into int32 codes on the grid of the layer's sums. It is much finer than that of the answer:
    of a code, the digits that float16 keeps are enough."""
    for layer in layers:
        node, bias = layer.node, layer.node.input(2)
        if bias is None:
            continue
        numbers = np.broadcast_to(np.asarray(bias.numpy(), np.float64).reshape(-1), (layer.channels,))
        scale = np.broadcast_to(grids[layer].scale * insertion.grid(layer.source).scale, (layer.channels,))
        grid = Grid(np.ascontiguousarray(scale, np.float32), 0, DType.INT32, 0, -(2**31) + 1, 2**31 - 1)
        codes = insertion.graph.constant(shortened(grid.encode(numbers)), bias.name)
        node.set_input(2, insertion.dequantize(codes, grid, before=node, origin=node.origin, hint="bias"))


def encode(
    layer: Layer,
    energy: NDArray[np.float64] | None,
    target: TargetFacts,
    least: NDArray[np.float64],
    *,
    per_channel: bool = True,
    bits: int = 8,
) -> tuple[NDArray[np.generic], Grid]:
    """Codes of a layer's weight, in its own layout, and their grid, whose scales are at least `least`.

    Codes of fewer than 8 bits are int8 too, from a shorter range.
    """
    weight = np.asarray(layer.weight.numpy(), np.float32)
    rows = reduction_rows(weight, layer.op, transposed=layer.transposed)
    h = importance_of(layer, energy, rows.shape)
    saturating = bits == 8 and target.saturating_int8 and target.activation_dtype is DType.UINT8 and not layer.depthwise
    dtype, zero = DType.INT8, 0
    codes, scale = quantize_rows(
        rows, dtype, importance=h, saturating=saturating, shared=not per_channel, least_scale=least, bits=bits
    )
    if saturating:
        free = quantize_rows(rows, dtype, importance=h, shared=not per_channel, least_scale=least)
        if squared_error(rows, codes, scale, h) > DEAREST * squared_error(rows, *free, h):
            codes, scale = free
            dtype, zero = DType.UINT8, 128
    axis = layer.axis if per_channel else None
    grid = Grid(np.asarray(scale if per_channel else scale[0]), zero, dtype, axis, *limits(dtype))
    shifted = (codes.astype(np.int16) + zero).astype(dtype.numpy)
    return weight_of_rows(shifted, weight.shape, layer.op, transposed=layer.transposed), grid


def least_scale(insertion: Insertion, users: Sequence[Layer]) -> NDArray[np.float64]:
    """The least scale of each channel with which int32 holds the bias of every layer that reads the weight."""
    least = np.zeros(users[0].channels)
    for layer in users:
        bias = layer.node.input(2)
        if bias is not None:
            numbers = np.abs(np.asarray(bias.numpy(), np.float64)).reshape(-1)
            least = np.maximum(least, 2 * numbers / (float(insertion.grid(layer.source).scale) * 2**31))
    return least
