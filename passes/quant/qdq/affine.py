"""Products with one positive number, and sums with one, on quantized values: the same values, read otherwise.

    a (s (q - z))      =  (a s) (q - z)
    s (q - z) + b      =  s (q - (z - b / s))

The first holds for every a > 0. The second wants b to be a whole number of steps, so the grid of what such a sum reads
is laid on the number that it moves to 0 (`laid_on`), where that makes it no more than `WIDER` wider. Nothing is rounded
again, and the runtime has one operator less. Networks whose activations have a scale and an offset of their own (as
those of PP-LCNetV3) would be rounded twice more in every block.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ....ir.graph import Node, Value
from ..numbers.params import QuantParams, limits

WIDER = 1 / 16
"""So much of a range's width may be added for a number to be a quantized value."""
NEAR = 0.05
"""Of a step: how far a sum may be off. Rounding is off by 0.29 in the mean."""


def factor_of(node: Node) -> float | None:
    """What a Mul multiplies every element by, where that is one positive number."""
    number = _number(node, "Mul")
    return number if number is not None and number > 0.0 else None


def offset_of(node: Node) -> float | None:
    """What an Add adds to every element, where that is one number."""
    return _number(node, "Add")


def is_affine(node: Node) -> bool:
    return factor_of(node) is not None or offset_of(node) is not None


def operand(node: Node) -> Value | None:
    """What such a node computes on."""
    return next((value for value in node.inputs if value is not None and value.constant is None), None)


def read_as(params: QuantParams, node: Node) -> QuantParams | None:
    """The parameters by which the codes of what `node` reads stand for its answer; `None` where none do."""
    factor, offset = factor_of(node), offset_of(node)
    if factor is not None:
        scale = np.asarray(params.scale * np.float32(factor))
        return replace(params, scale=scale) if np.isfinite(scale) and scale > 0.0 else None
    if offset is None or params.low == -params.high:  # symmetric grids have their zero at 0
        return None
    steps = offset / params.unit
    zero = params.zero_point - round(steps)
    if abs(steps - round(steps)) > NEAR or not params.low <= zero <= params.high:
        return None
    return replace(params, zero_point=zero)


def laid_on(params: QuantParams, number: float) -> QuantParams:
    """The parameters next to `params` of which `number` is a quantized value; `params` where they were much wider."""
    steps = int(abs(number) / params.unit)
    if not steps or params.dtype.bits != 8 or (params.low, params.high) != limits(params.dtype):
        return params
    scale = np.asarray(abs(number) / steps, np.float32)
    zero = int(np.rint(params.low - params.bounds[0] / float(scale)))
    return replace(params, scale=scale, zero_point=zero) if float(scale) <= (1 + WIDER) * params.unit else params


def _number(node: Node, op: str) -> float | None:
    if node.op != op or node.domain or len(node.inputs) != 2:
        return None
    constants = [value for value in node.inputs if value is not None and value.constant is not None]
    read = operand(node)
    if len(constants) != 1 or read is None or constants[0].constant is None or constants[0].constant.size != 1:
        return None
    if len(constants[0].constant.shape) > len(read.shape or ()):
        return None
    number = float(np.asarray(constants[0].numpy(), np.float64).reshape(()))
    return number if math.isfinite(number) else None
