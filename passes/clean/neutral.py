"""Arithmetic with a neutral element.

    x + 0, x - 0, x * 1, x / 1, x ** 1, x and True, x or False, Where(True, x, y), Where(False, y, x)   ->   x

Exact but for the sign of a zero: `-0.0 + 0.0` is `0.0`. Does not fire where broadcasting against the constant would
change the shape of x, or could: every dimension of the constant must be 1 or provably that of x; nor for `0 - x`,
`1 / x`, `x * 0` (not 0 for infinities), and operators older than set 7, which broadcast by other rules.
"""

from __future__ import annotations

from ...ir.node import Node, Value
from .broadcast import fits_into, same
from .fill import Array, element, is_uniform
from .rewriter import Rewriter, Rule

_NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1, "Pow": 1, "And": 1, "Or": 0}
_COMMUTES = ("Add", "Mul", "And", "Or")


def _rewrite(node: Node, rewriter: Rewriter) -> bool:
    if node.op == "Where":
        return _where(node, rewriter)
    for index in (1, 0) if node.op in _COMMUTES else (1,):
        constant, source = node.input(index), node.input(1 - index)
        array = rewriter.array(constant)
        if array is None or constant is None or source is None or not _all_equal(array, _NEUTRAL[node.op]):
            continue
        if fits_into(constant.shape, source.shape) and _same_type(node, source):
            return rewriter.bypass(node, source)
    return False


def _where(node: Node, rewriter: Rewriter) -> bool:
    condition = rewriter.array(node.input(0))
    if condition is None or node.inputs[0] is None:
        return False
    for index, wanted in ((1, 1), (2, 0)):
        source, other = node.input(index), node.input(3 - index)
        if source is None or other is None or not _all_equal(condition, wanted):
            continue
        if fits_into(node.inputs[0].shape, source.shape) and (
            fits_into(other.shape, source.shape) or same(node.output.shape, source.shape)
        ):
            return rewriter.bypass(node, source)
    return False


def _all_equal(array: Array, number: int) -> bool:
    if array.size == 0 or array.dtype.kind not in "biuf":
        return False
    if is_uniform(array):
        return bool(element(array) == number)
    return bool(array.reshape(-1)[0] == number) and bool((array == number).all())


def _same_type(node: Node, source: Value) -> bool:
    """Pow takes the type of its base; the others have one type for all. Kept as a guard where types are known."""
    return node.output.dtype is None or source.dtype is None or node.output.dtype is source.dtype


RULE = Rule("neutral", (*_NEUTRAL, "Where"), _rewrite)
