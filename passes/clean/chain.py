"""Chains of arithmetic with constants.

    (x + a) + b -> x + (a + b)      (x - a) - b -> x - (a + b)      and with + and - mixed
    (x * a) * b -> x * (a * b)      (x / a) / b -> x / (a * b)      and with * and / mixed

Exact for integers under + and *, which wrap; for floats within rounding, because a sum or product of two constants
is rounded once instead of the intermediate value. Does not fire where that would not hold: a sum of opposite signs
that cancels more than half, a product that leaves the normal range, integer division. Nor where the new constant
would be larger than both, where the value in between is read by others, or for `c - x` and `c / x`.
"""

from __future__ import annotations

import numpy as np

from ...ir.node import Node, Value
from .fill import Array, elementwise, stored_bytes
from .rewriter import Rewriter, Rule

_SUMS = {"Add": 1, "Sub": -1}
_PRODUCTS = {"Mul": 1, "Div": -1}


def _parts(node: Node) -> tuple[Value, Value] | None:
    """The variable and the constant of `x op c`, or of `c op x` where op commutes."""
    if len(node.inputs) != 2:
        return None
    first, second = node.inputs
    if first is None or second is None:
        return None
    if second.constant is not None and first.constant is None:
        return first, second
    if first.constant is not None and second.constant is None and node.op in ("Add", "Mul"):
        return second, first
    return None


def _rewrite(node: Node, rewriter: Rewriter) -> bool:
    outer = _parts(node)
    if outer is None:
        return False
    index = 0 if outer[0] is node.inputs[0] else 1
    signs = _SUMS if node.op in _SUMS else _PRODUCTS
    inner_node = rewriter.made_only_for(node, index, *signs)
    inner = None if inner_node is None else _parts(inner_node)
    if inner_node is None or inner is None:
        return False
    a, b = rewriter.array(inner[1]), rewriter.array(outer[1])
    if a is None or b is None or a.dtype != b.dtype:
        return False
    op, merged = _merge(a, b, signs[inner_node.op], signs[node.op], signs is _SUMS)
    if (
        merged is None
        or stored_bytes(merged) > max(a.nbytes, b.nbytes)
        or not rewriter.pays([merged], node, inner_node)
    ):
        return False
    inputs = [inner[0], rewriter.constant(node, merged, outer[1].name)]
    rewriter.replace(node, rewriter.make(node, op, inputs, merged=[inner_node]))
    return True


def _merge(a: Array, b: Array, first: int, second: int, is_sum: bool) -> tuple[str, Array | None]:
    """The operator and constant that do what `a` and then `b` did; +1 is add or multiply, -1 its inverse."""
    is_float = a.dtype.kind == "f"
    if not is_float and (a.dtype.kind not in "iu" or (not is_sum and -1 in (first, second))):
        return "", None
    if is_sum:
        op = "Add" if first > 0 else "Sub"
        merged = elementwise(np.add if first == second else np.subtract, a, b)
        large = elementwise(lambda p, q: np.maximum(np.abs(p), np.abs(q)), a, b)
        return op, merged if not is_float or _holds(merged, large, 0.5) else None
    op = "Mul" if first > 0 else "Div"
    with np.errstate(all="ignore"):
        merged = elementwise(np.multiply if first == second else np.divide, a, b)
    return op, merged if not is_float or _is_normal(merged) else None


def _holds(merged: Array, large: Array, share: float) -> bool:
    """Whether a sum kept at least `share` of its larger term, so that no digits were lost."""
    return bool(np.all(elementwise(lambda m, x: np.abs(m) >= share * x, merged, large)))


def _is_normal(array: Array) -> bool:
    info = np.finfo(array.dtype)
    return bool(np.all(elementwise(lambda v: (v == 0) | ((np.abs(v) >= info.tiny) & np.isfinite(v)), array)))


RULE = Rule("constant-chain", ("Add", "Sub", "Mul", "Div"), _rewrite)
