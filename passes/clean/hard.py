"""HardSigmoid and HardSwish, spelled out.

    1. Clip(x + b, 0, h) / h    ->   HardSigmoid(x; 1/h, b/h)
    2. x Clip(x + b, 0, h) k    ->   x HardSigmoid(x; 1/h, b/h) (h k)
    3. x HardSigmoid(x; 1/6, 1/2)   ->   HardSwish(x), where the operator set has it

Two passes over the tensor instead of four: half of the time on ONNX Runtime, which does not fuse them itself. Within
rounding, for 1/h is rounded. Does not fire on other types than float, the only one that ONNX Runtime has a kernel for;
where b, k or a bound is not one constant number; or where others read the values in between.
"""

from __future__ import annotations

import math

import numpy as np

from ...ir.node import Node, Value
from ...ir.types import DType
from .activation import limits
from .rewriter import Rewriter, Rule

_HARD_SWISH = 14
"""The operator set that brings HardSwish."""


def _number(node: Node) -> tuple[int, Value, float] | None:
    """Where the variable of `x op c` stands, it, and the number; of `c op x` as well where op commutes."""
    if len(node.inputs) != 2:
        return None
    for place in (0,) if node.op == "Div" else (0, 1):
        x, c = node.inputs[place], node.inputs[1 - place]
        if x is None or c is None or c.constant is None or x.dtype is not DType.FLOAT:
            continue
        if math.prod(c.constant.shape) == 1 and len(c.constant.shape) <= len(x.shape or ()):
            number = float(c.constant.numpy().reshape(()))
            if math.isfinite(number) and number:
                return place, x, number
    return None


def _factor(node: Node) -> tuple[int, float] | None:
    """Where the variable of a Mul or Div by a number stands, and by what it is multiplied."""
    factor = _number(node)
    return None if factor is None else (factor[0], factor[2] if node.op == "Mul" else 1 / factor[2])


def _ramp(node: Node, place: int, rewriter: Rewriter) -> tuple[Value, float, float, list[Node]] | None:
    """x, b, h and the nodes of Clip(x + b, 0, h), if that is what input `place` is and nobody else reads it."""
    clip = rewriter.made_only_for(node, place, "Clip")
    add = None if clip is None else rewriter.made_only_for(clip, 0, "Add")
    shifted = None if add is None else _number(add)
    if clip is None or add is None or shifted is None:
        return None
    bounds = limits(clip)
    if bounds is None or bounds[0] != 0 or not 0 < bounds[1] < math.inf:
        return None
    return shifted[1], shifted[2], bounds[1], [add, clip]


def _sigmoid(node: Node, rewriter: Rewriter) -> bool:
    scaled = _factor(node)
    ramp = None if scaled is None else _ramp(node, scaled[0], rewriter)
    if scaled is None or ramp is None or not _is_one(scaled[1] * ramp[2]):
        return False
    x, b, h, merged = ramp
    rewriter.replace(node, rewriter.make(node, "HardSigmoid", [x], {"alpha": 1 / h, "beta": b / h}, merged=merged))
    return True


def _swish(node: Node, rewriter: Rewriter) -> bool:
    scaled = _factor(node)
    product = None if scaled is None else rewriter.made_only_for(node, scaled[0], "Mul")
    if scaled is None or product is None:
        return False
    for place in (0, 1):
        ramp = _ramp(product, place, rewriter)
        if ramp is None or product.inputs[1 - place] is not ramp[0]:
            continue
        x, b, h, (add, clip) = ramp
        result = rewriter.make(clip, "HardSigmoid", [x], {"alpha": 1 / h, "beta": b / h}, merged=[add])
        if _is_one(scaled[1] * h):
            result = rewriter.make(node, "Mul", [x, result], merged=[product])
        else:
            result = rewriter.make(product, "Mul", [x, result])
            result = rewriter.make(
                node, "Mul", [result, rewriter.constant(node, np.asarray(scaled[1] * h, np.float32))]
            )
        rewriter.replace(node, result)
        return True
    return False


def _is_one(number: float) -> bool:
    return math.isclose(number, 1, rel_tol=1e-6)


def _whole(node: Node, rewriter: Rewriter) -> bool:
    if rewriter.opset < _HARD_SWISH or len(node.inputs) != 2:
        return False
    for place in (0, 1):
        hard = rewriter.made_only_for(node, place, "HardSigmoid")
        if hard is None or hard.inputs[0] is not node.inputs[1 - place]:
            continue
        if math.isclose(hard.get_float("alpha", 0.2), 1 / 6, rel_tol=1e-6) and hard.get_float("beta", 0.5) == 0.5:
            rewriter.replace(node, rewriter.make(node, "HardSwish", hard.inputs, merged=[hard]))
            return True
    return False


RULES = (
    Rule("hard-sigmoid", ("Mul", "Div"), _sigmoid),
    Rule("hard-swish", ("Mul", "Div"), _swish),
    Rule("hard-swish-whole", ("Mul",), _whole),
)
