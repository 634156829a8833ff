"""Chains of activations and of functions that undo or repeat themselves.

    1. f(f(x)) -> f(x)          for Relu, Abs, Floor, Ceil, Round, Sign
    2. f(f(x)) -> x             for Neg and Not
    3. Relu(Clip), Clip(Relu), Clip(Clip)   ->   one Clip, with the tighter bounds

Exact: `min(max(x, a), b)` followed by `min(max(., c), d)` is a Clip with bounds `min(max(a, c), d)` and `min(max(b,
c), d)` for a <= b, c <= d. Does not fire where a bound is not constant, where lower and upper bound cross, or where
the first of the two is read by others.
"""

from __future__ import annotations

import math

import numpy as np

from ...ir.node import Node
from ...ir.ops import clamp_bounds
from ...ir.types import DType
from .rewriter import Rewriter, Rule

_IDEMPOTENT = ("Relu", "Abs", "Floor", "Ceil", "Round", "Sign")
_INVOLUTION = ("Neg", "Not")


def _again(node: Node, rewriter: Rewriter) -> bool:
    inner = rewriter.made_by(node, 0, node.op)
    if inner is None or inner.inputs[0] is None:
        return False
    return rewriter.bypass(node, inner.output if node.op in _IDEMPOTENT else inner.inputs[0])


def limits(node: Node) -> tuple[float, float] | None:
    """The bounds of a Relu or Clip; `None` where they are not constant or the lower is the higher one."""
    bounds = clamp_bounds(node)
    return bounds if bounds is not None and bounds[0] <= bounds[1] else None


def _clips(node: Node, rewriter: Rewriter) -> bool:
    inner = rewriter.made_only_for(node, 0, "Clip", "Relu")
    if inner is None or inner.op == node.op == "Relu" or node.output.dtype not in (DType.FLOAT, DType.DOUBLE):
        return False
    first, second = limits(inner), limits(node)
    if first is None or second is None:
        return False
    low, high = (min(max(v, second[0]), second[1]) for v in first)
    if low == 0 and high == math.inf:
        fused = rewriter.make(node, "Relu", inner.inputs[:1], merged=[inner])
    elif rewriter.opset < 11:
        bounds = {"min": low} if high == math.inf else {"max": high} if low == -math.inf else {"min": low, "max": high}
        fused = rewriter.make(node, "Clip", inner.inputs[:1], bounds, merged=[inner])
    else:
        dtype = node.output.dtype.numpy
        ends = [None if math.isinf(v) else rewriter.constant(node, np.asarray(v, dtype)) for v in (low, high)]
        inputs = [inner.inputs[0], *ends]
        while inputs[-1] is None:
            inputs.pop()
        fused = rewriter.make(node, "Clip", inputs, merged=[inner])
    rewriter.replace(node, fused)
    return True


RULES = (Rule("repeated", (*_IDEMPOTENT, *_INVOLUTION), _again), Rule("clip-chain", ("Relu", "Clip"), _clips))
