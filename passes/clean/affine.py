"""Arithmetic with constants into the layers around it.

    1. layer(x) * c, / c, + c, - c, and c - layer(x)   ->  layer(x)        see `layer.after`
    2. layer(x * c), (x / c), (x + c), (x - c)         ->  layer(x)        see `layer.before`

for a constant c of one element or one per channel. Exact up to one rounding of the weights. Does not fire where c
varies along another axis or would broadcast the result to another shape, for c / layer(x), for a shift into a
padded or transposed convolution or a MatMul (which has no bias), where the value in between is read by others, and
for the last factor of a GELU written out, 0.5 x (1 + erf(x / sqrt 2)): runtimes fuse the whole only while it is there.
"""

from __future__ import annotations

import numpy as np

from ...ir.node import Node, Value
from ...ir.ops import LAYERS
from .broadcast import channel_axis, fits_into
from .fill import compact, elementwise, reshape
from .layer import FLOATS, Affine, after, before, input_channels, output_axis, output_channels, weight
from .rewriter import Rewriter, Rule

STEPS = ("Mul", "Div", "Add", "Sub")


def operand(node: Node, rewriter: Rewriter, *ops: str) -> tuple[Node, Affine, tuple[int, ...]] | None:
    """For arithmetic on the result of one of `ops`, read by nothing else: that node, the map, the constant's shape."""
    for index in (0, 1):
        producer = rewriter.made_only_for(node, index, *ops)
        step = None if producer is None else as_affine(node, 1 - index, rewriter)
        if producer is not None and step is not None:
            return producer, *step
    return None


def as_affine(node: Node, index: int, rewriter: Rewriter) -> tuple[Affine, tuple[int, ...]] | None:
    """The map that arithmetic with a constant as input `index` is, and the constant's shape."""
    value = node.input(index)
    if len(node.inputs) != 2 or value is None or value.constant is None or value.constant.dtype not in FLOATS:
        return None
    raw = compact(value.constant.numpy())
    if raw.size == 0:
        return None
    shape = raw.shape
    flat = elementwise(lambda a: a.astype(np.float64), reshape(raw, (raw.size,)))
    match node.op, index:
        case "Mul", _:
            return Affine(scale=flat), shape
        case "Div", 1 if (flat != 0).all():
            return Affine(scale=elementwise(lambda a: 1 / a, flat)), shape
        case "Add", _:
            return Affine(shift=flat), shape
        case "Sub", 1:
            return Affine(shift=elementwise(np.negative, flat)), shape
        case "Sub", 0:
            return Affine(scale=np.full(1, -1.0), shift=flat), shape
    return None


def _after(node: Node, rewriter: Rewriter) -> bool:
    operands = operand(node, rewriter, *LAYERS)
    if operands is None:
        return False
    layer, step, shape = operands
    weights = weight(layer)
    if weights is None:
        return False
    declared = layer.output.shape
    rank = len(declared) if declared is not None else weights.ndim
    if channel_axis(shape, rank, output_axis(layer, rank)) not in (1, output_channels(layer, weights)):
        return False
    if not after(layer, step, node, rewriter):
        return False
    rewriter.replace(node, layer.output)
    return True


def _before(node: Node, rewriter: Rewriter) -> bool:
    inner = rewriter.made_only_for(node, 0, *STEPS)
    weights = weight(node)
    if inner is None or weights is None or (node.op == "Gemm" and node.get_int("transA")):
        return False
    for index in (0, 1):
        step, source = as_affine(inner, index, rewriter), inner.input(1 - index)
        if step is None or source is None or source.shape is None or not fits_into(step[1], source.shape):
            continue
        if _ends_gelu(source):
            return False
        rank = len(source.shape)
        axis = 1 if node.op in ("Conv", "ConvTranspose") else rank - 1
        if channel_axis(step[1], rank, axis) not in (1, input_channels(node, weights)):
            continue
        if before(node, step[0], inner, rewriter):
            rewriter.set_input(node, 0, source)
            return True
    return False


def _ends_gelu(product: Value) -> bool:
    """Whether a value is x * (1 + erf(...)), with the factors in either order."""
    inner = product.producer
    if inner is None or inner.op != "Mul":
        return False
    sums = [v.producer for v in inner.inputs if v is not None and v.producer is not None and v.producer.op == "Add"]
    terms = [v.producer for node in sums for v in node.inputs if v is not None]
    return any(term is not None and term.op == "Erf" for term in terms)


RULES = (Rule("affine-after", STEPS, _after), Rule("affine-before", LAYERS, _before))
