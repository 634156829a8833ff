"""HardSigmoid on quantized values: a sum with a constant, and saturation.

    HardSigmoid(x) = clip(alpha x + beta, 0, 1),      alpha > 0

Read with alpha times its scale, a quantized x stands for alpha x. Added to beta and quantized over [0, 1], what lies
outside saturates, which is the clip. So the runtime has one integer Add, where it has no kernel for HardSigmoid:

    DequantizeLinear(q; alpha s, z) + beta  ->  QuantizeLinear(1/255, 0)

Exact up to the rounding that quantizing the answer has anyhow.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ....ir.graph import Node, Value
from ....ir.origin import Origin
from ..numbers.params import QuantParams

if TYPE_CHECKING:
    from .insertion import Insertion

ENDS = (0.0, 1.0)
"""Of what a HardSigmoid answers."""


def is_ramp(node: Node) -> bool:
    """Whether a node is a HardSigmoid that rises."""
    return (
        node.op == "HardSigmoid" and not node.domain and 0.0 < _alpha(node) < np.inf and bool(np.isfinite(_beta(node)))
    )


def is_ramp_on(value: Value) -> bool:
    """Whether such a node makes `value`."""
    return value.producer is not None and is_ramp(value.producer)


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
