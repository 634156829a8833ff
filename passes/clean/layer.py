"""Scaling and shifting the channels of a layer through its weights.

A Conv, ConvTranspose, Gemm or MatMul with constant weights is linear: with y = W x + b,

    s * y + t          =  (s W) x + (s b + t)               per output channel
    W (s * x + t) + b  =  (W s) x + (W t + b)               per input channel

The first holds always. The second holds for the scale always, and for the shift only where every output sees every
weight: padding with zeros is not padding with t. The new numbers are computed in double precision and rounded once.

Refused, leaving the graph as it is: weights that others read too (a copy would make the file larger), weights that are
not float16, float or double, results that overflow or fall into the subnormals, biases that are not constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...ir.node import Node
from ...ir.types import DType
from .fill import Array, core, elementwise, is_uniform, reshape, stored_bytes
from .rewriter import Rewriter

FLOATS = (DType.FLOAT16, DType.FLOAT, DType.DOUBLE)


@dataclass(frozen=True, slots=True)
class Affine:
    """`scale * x + shift`, each of one element or one per channel; `None` where it does nothing."""

    scale: Array | None = None
    shift: Array | None = None


def weight(layer: Node) -> Array | None:
    """The weight of a layer that can be folded into, else `None`."""
    value = layer.input(1)
    if value is None or value.constant is None or value.constant.dtype not in FLOATS or len(value.constant.shape) < 2:
        return None
    if layer.op == "Gemm" and len(value.constant.shape) != 2:
        return None
    return value.constant.numpy()


def output_axis(layer: Node, rank: int) -> int:
    """The axis of a layer's output, of rank `rank`, along which its output channels lie."""
    return 1 if layer.op in ("Conv", "ConvTranspose") else rank - 1


def output_channels(layer: Node, weights: Array) -> int:
    shape: tuple[int, ...] = weights.shape
    match layer.op:
        case "Conv":
            return shape[0]
        case "ConvTranspose":
            return shape[1] * layer.get_int("group", 1)
        case "Gemm":
            return shape[0 if layer.get_int("transB") else 1]
    return shape[-1]


def input_channels(layer: Node, weights: Array) -> int:
    shape: tuple[int, ...] = weights.shape
    match layer.op:
        case "Conv":
            return shape[1] * layer.get_int("group", 1)
        case "ConvTranspose":
            return shape[0]
        case "Gemm":
            return shape[1 if layer.get_int("transB") else 0]
    return shape[-2]


def after(layer: Node, affine: Affine, by: Node, rewriter: Rewriter) -> bool:
    """Fold `affine` of the output of `layer`, computed by the node `by`, into its weights; then replace `by`."""
    weights = weight(layer)
    if weights is None or (affine.shift is not None and layer.op == "MatMul"):
        return False
    try:
        bias = _bias(layer, rewriter)
    except _NotConstant:
        return False
    scaled = weights
    if affine.scale is not None:
        scaled = multiply(weights, _along_outputs(layer, weights, affine.scale))
    new_bias = bias
    if affine.shift is not None or (bias is not None and affine.scale is not None):
        new_bias = _combine(bias, affine)
    return _apply(layer, by, weights, scaled, bias, new_bias, rewriter)


def before(layer: Node, affine: Affine, by: Node, rewriter: Rewriter) -> bool:
    """Fold `affine` of the input of `layer`, computed by the node `by`, into its weights; then bypass `by`."""
    weights = weight(layer)
    if weights is None:
        return False
    bias = new_bias = None
    if affine.shift is not None:
        if not _sees_everything(layer):
            return False
        try:
            bias = _bias(layer, rewriter)
        except _NotConstant:
            return False
        moved = _through(layer, weights, affine.shift)
        new_bias = moved if bias is None else elementwise(np.add, bias, moved)
    scaled = weights
    if affine.scale is not None:
        scaled = multiply(weights, _along_inputs(layer, weights, affine.scale))
    return _apply(layer, by, weights, scaled, bias, new_bias, rewriter)


class _NotConstant(Exception):
    """The bias of a layer is not a constant per output channel."""


def _sees_everything(layer: Node) -> bool:
    """Whether a layer has a bias and no output that misses some of the weights at a border."""
    if layer.op == "Gemm":
        return True
    return (
        layer.op == "Conv"
        and not any(layer.get_ints("pads"))
        and layer.get_string("auto_pad") in ("", "NOTSET", "VALID")
    )


def _bias(layer: Node, rewriter: Rewriter) -> Array | None:
    """What a layer adds per output channel, in double precision: a vector, or one number; `None` if nothing."""
    value = layer.input(2)
    if value is None or layer.op == "MatMul":
        return None
    array = rewriter.array(value)
    if array is None or array.dtype.kind != "f" or (array.ndim == 2 and array.shape[0] != 1) or array.ndim > 2:
        raise _NotConstant
    factor = layer.get_float("beta", 1.0) if layer.op == "Gemm" else 1.0
    return elementwise(lambda a: a.astype(np.float64) * factor, reshape(array, (array.size,)))


def _along_outputs(layer: Node, weights: Array, scale: Array) -> Array:
    """`scale` per output channel, in a shape that broadcasts against the weights (or their grouped view)."""
    if scale.size == 1:
        return scale.reshape(())
    match layer.op:
        case "Conv":
            return reshape(scale, (-1,) + (1,) * (weights.ndim - 1))
        case "ConvTranspose":
            return reshape(scale, (layer.get_int("group", 1), 1, weights.shape[1]) + (1,) * (weights.ndim - 2))
        case "Gemm" if layer.get_int("transB"):
            return reshape(scale, (-1, 1))
    return scale


def _along_inputs(layer: Node, weights: Array, scale: Array) -> Array:
    """`scale` per input channel, in a shape that broadcasts against the weights (or their grouped view)."""
    if scale.size == 1:
        return scale.reshape(())
    match layer.op:
        case "Conv":
            return reshape(scale, (layer.get_int("group", 1), 1, weights.shape[1]) + (1,) * (weights.ndim - 2))
        case "ConvTranspose":
            return reshape(scale, (-1,) + (1,) * (weights.ndim - 1))
        case "Gemm" if layer.get_int("transB"):
            return scale
    return reshape(scale, (-1, 1))


def multiply(weights: Array, factor: Array) -> Array:
    """Weights times a factor in the shape of the weights, or of their view with the group as an axis of its own."""
    view = weights
    if factor.ndim > weights.ndim:
        groups = factor.shape[0]
        view = reshape(weights, (groups, weights.shape[0] // groups, *weights.shape[1:]))
    product = elementwise(lambda w, f: rounded(np.multiply(w, f, dtype=np.float64), weights.dtype), view, factor)
    return reshape(product, weights.shape)


def _combine(bias: Array | None, affine: Affine) -> Array:
    total = np.zeros(1) if bias is None else bias
    if affine.scale is not None:
        total = elementwise(np.multiply, total, affine.scale)
    return total if affine.shift is None else elementwise(np.add, total, affine.shift)


def _through(layer: Node, weights: Array, shift: Array) -> Array:
    """W t: what a constant input `shift` per input channel adds to each output channel."""
    channels = output_channels(layer, weights)
    if layer.op == "Conv":
        groups = layer.get_int("group", 1)
        matrix = reshape(weights, (groups, channels // groups, weights.shape[1], -1))
        each = reshape(
            np.broadcast_to(shift.reshape(-1), (groups * weights.shape[1],)), (groups, 1, weights.shape[1], 1)
        )
    else:
        alpha = layer.get_float("alpha", 1.0)
        matrix = weights if layer.get_int("transB") else weights.T
        matrix, each = (
            matrix[None, :, :, None],
            (alpha * np.broadcast_to(shift.reshape(-1), matrix.shape[1:]))[None, None, :, None],
        )
    if is_uniform(matrix) and (is_uniform(each) or each.size == 1):
        one = float(matrix[0, 0, 0, 0]) * float(each[0, 0, 0, 0]) * matrix.shape[2] * matrix.shape[3]
        return np.broadcast_to(np.float64(one), (channels,))
    total = np.einsum("gmck,gxcy->gm", matrix.astype(np.float64), each)
    return np.asarray(total, np.float64).reshape(channels)


def _apply(
    layer: Node,
    by: Node,
    weights: Array,
    scaled: Array,
    bias: Array | None,
    new_bias: Array | None,
    rewriter: Rewriter,
) -> bool:
    """Give `layer` its new weights and bias where they differ from the old, if they are sound and worth their bytes."""
    old, old_bias = layer.inputs[1], layer.input(2)
    assert old is not None
    stored_bias = None
    if new_bias is not None and new_bias is not bias:
        channels = output_channels(layer, weights)
        stored_bias = elementwise(lambda b: rounded(b, weights.dtype), np.broadcast_to(new_bias, (channels,)))
        if stored_bytes(weights) == weights.nbytes:
            stored_bias = np.ascontiguousarray(stored_bias)
    arrays = [a for a in (None if scaled is weights else scaled, stored_bias) if a is not None]
    if not all(sound(a) for a in arrays) or not rewriter.pays(arrays, layer, by):
        return False
    if scaled is not weights:
        rewriter.set_input(layer, 1, rewriter.constant(layer, scaled, old.name))
    if stored_bias is not None:
        name = old_bias.name if old_bias is not None else f"{layer.output.name}.bias"
        rewriter.set_input(layer, 2, rewriter.constant(layer, stored_bias, name))
        if layer.op == "Gemm":
            layer.attributes.pop("beta", None)
    rewriter.touch(layer, by)
    return True


def rounded(array: Array, dtype: np.dtype[np.generic]) -> Array:
    """Numbers in a narrower type; what overflows is infinite, which `sound` refuses."""
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def sound(array: Array) -> bool:
    """Whether numbers are finite and, as a whole, well above the subnormals."""
    sample = core(array)
    if not np.isfinite(sample).all():
        return False
    largest = float(np.abs(sample).max(initial=0))
    info = np.finfo(array.dtype)
    return largest == 0 or largest >= math.ldexp(float(info.tiny), info.nmant)
