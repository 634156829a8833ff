"""HardSigmoid on quantized values: the same values, cut and read otherwise, or a sum with a constant.

    HardSigmoid(x) = clip(alpha x + beta, 0, 1),      alpha > 0

It leaves 0 at x = -beta / alpha and reaches 1 at x = (1 - beta) / alpha. Where a quantized x stands for both of these
numbers, by the codes a and b, the answer is on the grid of x already, and nothing is rounded:

    DequantizeLinear(Clip(q, a, b); alpha s, a)

So the grid of an x that such a node reads is laid through these two (`laid_through`), where that makes it no more than
`WIDER` wider. Elsewhere, read with alpha times its scale, a quantized x stands for alpha x. Added to beta and quantized
over [0, 1], what lies outside saturates, which is the clip; the runtime has one integer Add:

    DequantizeLinear(q; alpha s, z) + beta  ->  QuantizeLinear(1/255, 0)

Exact up to the rounding that quantizing the answer has anyhow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ....ir.graph import Node, Value
from ....ir.origin import Origin
from ..numbers.params import QuantParams, limits
from .affine import is_affine, laid_on, operand, read_as

if TYPE_CHECKING:
    from .insertion import Insertion
    from .placement import Placement

ENDS = (0.0, 1.0)
"""Of what a HardSigmoid answers."""
WIDER = 1 / 16
"""So much of a range's width may be added for a grid to be laid through the ends of a ramp."""
NEAR = 1e-3
"""Of a step: how far from a quantized value the end of a ramp may be."""


def is_ramp(node: Node) -> bool:
    """Whether a node is a HardSigmoid that rises."""
    return (
        node.op == "HardSigmoid" and not node.domain and 0.0 < _alpha(node) < np.inf and bool(np.isfinite(_beta(node)))
    )


def is_ramp_on(value: Value) -> bool:
    """Whether such a node makes `value`."""
    return value.producer is not None and is_ramp(value.producer)


def laid_through(params: QuantParams, numbers: tuple[float, ...]) -> QuantParams:
    """The parameters next to `params` by which the two ends of a ramp, or the one number that a sum moves to 0, are
    quantized values; `params` themselves where there are no such numbers, or they would have to be much wider."""
    if len(numbers) == 1:
        return laid_on(params, *numbers)
    low, high = params.bounds
    if not numbers or params.dtype.bits != 8 or (params.low, params.high) != limits(params.dtype):
        return params
    start, end = numbers
    if not (start < 0.0 < end and low < 0.0):
        return params
    steps = int(-start * (params.high - params.low) / (high - min(low, start)))
    if not steps:
        return params
    scale = np.asarray(-start / steps, np.float32)
    zero = max(int(np.rint(params.low - low / float(scale))), params.low + steps)
    wider = replace(params, scale=scale, zero_point=zero)
    near = abs(end / float(scale) - round(end / float(scale))) < NEAR
    return wider if near and float(scale) <= (1 + WIDER) * params.unit else params


def read_otherwise(plan: Placement, params_of: Mapping[Value, QuantParams]) -> dict[Value, QuantParams]:
    """For each group that is the answer of one ramp alone, whose ends its input has as quantized values, or of one
    product or sum with a number, the parameters by which codes of the input, cut to their `low` and `high`, stand for
    the answer."""
    sizes = Counter(plan.group.values())
    cut: dict[Value, QuantParams] = {}
    for value, group in plan.group.items():
        node = value.producer
        if node is None or node not in plan.pointwise or sizes[group] != 1 or not (is_ramp(node) or is_affine(node)):
            continue
        source = operand(node)
        assert source is not None
        read = plan.group[source]
        of_source = cut.get(read, params_of[read])
        params = _cut(of_source, node) if is_ramp(node) else read_as(of_source, node)
        if params is not None:
            cut[value] = params
    return cut


def _cut(params: QuantParams, node: Node) -> QuantParams | None:
    ends = [end / params.unit for end in ends_of(node)]
    if params.dtype.bits != 8 or any(abs(end - round(end)) > NEAR for end in ends):
        return None
    low, high = (params.zero_point + round(end) for end in ends)
    if not params.low <= low < high:
        return None
    return replace(
        params, scale=np.asarray(params.scale * np.float32(_alpha(node))), zero_point=low, low=low,
        high=min(high, params.high),
    )  # fmt: skip


def saturates(params: QuantParams) -> bool:
    """Whether `params`, those of the answer, do the clip."""
    return max(abs(end - wanted) for end, wanted in zip(params.bounds, ENDS, strict=True)) < 1e-6


def write_ramp(insertion: Insertion, node: Node, codes: Value, params: QuantParams) -> None:
    """Let a sum answer for `node`, which reads `codes` of these `params`."""
    origin = Origin.merge([node.origin], "quant")
    steep = replace(params, scale=np.asarray(params.scale * np.float32(_alpha(node))))
    constant = insertion.constant_operand(np.asarray(_beta(node), np.float32), node)
    scaled = insertion.dequantize(codes, steep, before=node, origin=node.origin, hint="decoded")
    twin = insertion.graph.add(
        "Add", [scaled, constant], outputs=[node.output.name], types=[node.output.type], name=node.name,
        origin=origin, before=node,
    )  # fmt: skip
    node.output.replace_uses(twin.output)


def _alpha(node: Node) -> float:
    return node.get_float("alpha", 0.2)


def _beta(node: Node) -> float:
    return node.get_float("beta", 0.5)


def ends_of(node: Node) -> tuple[float, float]:
    """Where a ramp leaves 0, and where it reaches 1."""
    return -_beta(node) / _alpha(node), (1.0 - _beta(node)) / _alpha(node)
