"""Which layers of a quantized graph compute with integers, and what those need to know.

Such a layer reads DequantizeLinear of codes and DequantizeLinear of constant codes of its weights. With x = sx (q - z)
and w = sw c its answer is

    sx sw (sum q c - z sum c + bias / (sx sw)),

where the parentheses hold 32-bit integers, and sw is one number for each output channel; what a bias has beyond whole
units is added as a float. What follows stays in floats, in registers: QuantizeLinear of a product is a multiplication,
a rounding and a clamp.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ....ir.graph import Value
from ....ir.node import Node
from ....ir.types import DType
from ....passes.quant.numbers.params import QuantParams, limits

_BYTES = (DType.INT8, DType.UINT8)
_GROUP = 16
"""Channels that every group of a convolution must hold a multiple of: the largest block of any machine."""
_MOST = 2**31 - 1
_NOTHING = 1e-3
"""Units of a sum that are no more than the rounding of the scales."""
_NEAR = 1e-6
"""How far apart two scales may be that are one but for rounding."""

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class CodedLayer:
    """A Conv, Gemm or MatMul on codes.

    `weights` are int8 codes whose zero is 0, [Co, Ci, KH, KW] or [K, N]; `scales` what one unit of the sum is worth for
    each output channel; `bias` whole units of the sum, with the share of the zero of x in it; `rest` what the bias has
    beyond those, none where that is nothing.
    """

    codes: Value
    params: QuantParams
    weights: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    bias: npt.NDArray[np.int32]
    rest: npt.NDArray[np.float32] | None

    @property
    def most(self) -> float:
        """A bound of what it answers: no quantized value is further than 255 from its zero point."""
        axes = tuple(range(1, 4)) if self.weights.ndim == 4 else (0,)
        sums = 255.0 * np.abs(self.weights.astype(np.int64)).sum(axes) + np.abs(self.bias.astype(np.int64))
        beyond = 0 if self.rest is None else np.abs(self.rest)
        return float(np.max(2 * sums * self.scales + beyond, initial=0))


def params_of(node: Node) -> QuantParams | None:
    """The parameters of a QuantizeLinear or DequantizeLinear to or from 8 bits with one scale for the whole tensor."""
    scale, zero = node.input(1), node.input(2)
    if scale is None or scale.constant is None or scale.constant.numpy().size != 1:
        return None
    if scale.constant.dtype is not DType.FLOAT or (zero is not None and zero.constant is None):
        return None
    codes = node.output if node.op == "QuantizeLinear" else node.inputs[0]
    if codes is None or codes.dtype not in _BYTES:
        return None
    at = 0 if zero is None or zero.constant is None else int(zero.constant.numpy().reshape(()))
    unit = np.asarray(scale.constant.numpy().reshape(()), np.float32)
    return QuantParams(unit, at, codes.dtype, None, *limits(codes.dtype))


def coded_layer(node: Node) -> CodedLayer | None:
    """What a layer on codes computes; none where it is no such layer, or of a form that has no integer kernel."""
    if node.domain or node.op not in ("Conv", "Gemm", "MatMul"):
        return None
    x, w, bias = node.inputs[0], node.inputs[1], node.input(2)
    decode = None if x is None else x.producer
    if decode is None or decode.op != "DequantizeLinear" or decode.inputs[0] is None or w is None:
        return None
    codes, params, kernel = decode.inputs[0], params_of(decode), _weights(node, w)
    if params is None or kernel is None or codes.constant is not None or not _fits(node, codes):
        return None
    weights, scales = kernel
    reduced = tuple(range(1, 4)) if node.op == "Conv" else (0,)
    units = scales.astype(np.float64) * params.unit
    if units.min(initial=1) <= 0:
        return None
    offset = -params.zero_point * weights.sum(reduced, dtype=np.int64)
    rest = None
    if bias is not None:
        parts = _bias(bias, units)
        if parts is None:
            return None
        whole, rest = parts
        offset = offset + whole
    if np.abs(offset).max(initial=0) > _MOST:
        return None
    return CodedLayer(codes, params, weights, units.astype(np.float32), offset.astype(np.int32), rest)


def is_depthwise(node: Node, weights: Array) -> bool:
    return node.op == "Conv" and weights.shape[1] == 1 and 1 < node.get_int("group", 1) == weights.shape[0]


def _fits(node: Node, codes: Value) -> bool:
    if codes.shape is None or node.get_int("transA"):
        return False
    if node.op == "Gemm" and (node.get_float("alpha", 1.0), node.get_float("beta", 1.0)) != (1, 1):
        return False
    if node.op == "Conv":
        return len(codes.shape) == 4 and all(isinstance(size, int) for size in codes.shape[1:])
    return len(codes.shape) >= 2


def _weights(node: Node, value: Value) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]] | None:
    """Codes of the weights and the scale of each output channel."""
    decode = value.producer
    if decode is None or decode.op != "DequantizeLinear" or decode.get_int("block_size", 0):
        return None
    parts = [None if one is None or one.constant is None else one.constant.numpy() for one in decode.inputs]
    codes, scale = parts[0], parts[1]
    if codes is None or scale is None or scale.dtype != np.float32 or codes.dtype not in (np.int8, np.uint8):
        return None
    if len(decode.inputs) > 2 and decode.inputs[2] is not None and parts[2] is None:
        return None
    zero = parts[2] if len(parts) > 2 and parts[2] is not None else np.zeros((), codes.dtype)
    flipped = node.op == "Gemm" and bool(node.get_int("transB"))
    out = 0 if node.op == "Conv" or flipped else 1
    if codes.ndim != (4 if node.op == "Conv" else 2):
        return None
    if scale.size != 1 and decode.get_int("axis", 1) % codes.ndim != out:
        return None
    wide = zero.reshape([-1 if axis == out else 1 for axis in range(codes.ndim)]).astype(np.int16)
    shifted = codes.astype(np.int16) - wide
    if shifted.size and (shifted.min() < -128 or shifted.max() > 127):
        return None
    if node.op == "Conv":
        groups = node.get_int("group", 1)
        even = codes.shape[1] % _GROUP == 0 and codes.shape[0] // groups % _GROUP == 0
        if groups > 1 and not even and not is_depthwise(node, codes):
            return None
    weights = shifted.astype(np.int8)
    scales = np.broadcast_to(scale.reshape(-1), (codes.shape[out],)).astype(np.float32)
    return (weights.T if flipped else weights), scales


def _bias(
    value: Value, units: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32] | None] | None:
    """A bias as whole units of the sums, and what it has beyond those.

    Codes of 32 bits in these units are taken as they are: their scale has been rounded, which with large codes comes to
    more than nothing, and integer kernels do not ask for it.
    """
    constant = _constant(value)
    if constant is None or constant.size not in (1, units.size):
        return None
    wide = np.broadcast_to(constant.astype(np.float64).ravel(), units.shape)
    inputs = () if value.producer is None else value.producer.inputs
    arrays = [None if one is None or one.constant is None else one.constant.numpy() for one in inputs]
    if len(arrays) >= 2 and arrays[0] is not None and arrays[0].dtype == np.int32 and arrays[1] is not None:
        codes, scale = arrays[0].astype(np.int64).ravel(), arrays[1].astype(np.float64).ravel()
        plain = len(arrays) == 2 or arrays[2] is None or not np.any(arrays[2])
        if plain and codes.size == units.size and np.all(np.abs(scale / units - 1) < _NEAR):
            return codes, None
    whole = np.rint(wide / units)
    if np.abs(whole).max(initial=0) > _MOST:
        return None
    beyond = np.asarray(wide - whole * units, np.float32)
    return whole.astype(np.int64), beyond if np.abs(beyond / units).max(initial=0) > _NOTHING else None


def _constant(value: Value) -> Array | None:
    """The numbers of a constant, or of codes that are constant."""
    if value.constant is not None:
        return value.constant.numpy()
    decode = value.producer
    if decode is None or decode.op != "DequantizeLinear":
        return None
    operands = [value for value in decode.inputs if value is not None]
    parts = [np.asarray(value.constant.numpy(), np.float64) for value in operands if value.constant is not None]
    if len(parts) < len(operands):
        return None
    codes, scale, *zero = parts
    return np.asarray((codes - (zero[0] if zero else 0)) * scale)
