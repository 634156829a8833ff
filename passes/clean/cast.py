"""Chains of Casts, and constants that are moved once they are cast.

    1. Cast<c>(Cast<b>(x: a))   ->   Cast<c>(x), or x if c is a     where every number of type a is one of type b
    2. Transpose(Cast(w))       ->   Cast(Transpose(w))             and so for views, for a constant w

Exact because the inner cast loses nothing, so the outer one starts from the same number, and because what moves
elements does not look at them. After 2 the moved constant is folded in the type that it is stored in; a weight in half
precision is then read through its Cast alone. 1 does not fire where the inner cast rounds or wraps (float to half,
int64 to int32, float to int), for strings, or for the 8-bit floats, whose saturation is an attribute, nor where others
read the value in between and the result is not x: nothing would be saved. 2 does not where others read w or what is
cast of it.
"""

from __future__ import annotations

from ...ir.node import Node
from ...ir.ops import VIEWS
from ...ir.types import DType, TensorType
from .rewriter import Rewriter, Rule

_SIGNED = (DType.INT8, DType.INT16, DType.INT32, DType.INT64)
_UNSIGNED = (DType.UINT8, DType.UINT16, DType.UINT32, DType.UINT64)
_FLOATS = (DType.FLOAT16, DType.FLOAT, DType.DOUBLE)
_DIGITS = {DType.FLOAT16: 11, DType.BFLOAT16: 8, DType.FLOAT: 24, DType.DOUBLE: 53}


def holds(wide: DType, narrow: DType) -> bool:
    """Whether every number of type `narrow` is one of type `wide`."""
    if wide is narrow or narrow is DType.BOOL:
        return wide in (*_SIGNED, *_UNSIGNED, *_DIGITS, DType.BOOL)
    if narrow in _FLOATS:
        return wide in _FLOATS and _FLOATS.index(wide) >= _FLOATS.index(narrow)
    if narrow is DType.BFLOAT16:
        return wide in (DType.FLOAT, DType.DOUBLE)
    if narrow in _UNSIGNED and wide in _UNSIGNED:
        return wide.bits >= narrow.bits
    if narrow in _SIGNED and wide in _SIGNED:
        return wide.bits >= narrow.bits
    if narrow in _UNSIGNED and wide in _SIGNED:
        return wide.bits > narrow.bits
    return narrow in (*_SIGNED, *_UNSIGNED) and wide in _DIGITS and _DIGITS[wide] >= narrow.bits


def _rewrite(node: Node, rewriter: Rewriter) -> bool:
    inner = rewriter.made_by(node, 0, "Cast")
    source = None if inner is None else inner.inputs[0]
    if inner is None or source is None or source.dtype is None:
        return False
    if not holds(DType(inner.get_int("to")), source.dtype):
        return False
    if source.dtype is DType(node.get_int("to")):
        return rewriter.bypass(node, source)
    if len(inner.output.uses) > 1:
        return False
    rewriter.set_input(node, 0, source)
    rewriter.touch(node, inner)
    return True


def _moved(node: Node, rewriter: Rewriter) -> bool:
    cast = rewriter.made_only_for(node, 0, "Cast")
    source = None if cast is None else cast.inputs[0]
    if cast is None or source is None or source.constant is None or len(source.uses) > 1:
        return False
    if any(value is not None and value.constant is None for value in node.inputs[1:]):
        return False
    shape = node.output.shape
    moved = rewriter.make(
        node, node.op, [source, *node.inputs[1:]], dict(node.attributes), name=source.name,
        type=None if source.dtype is None else TensorType(source.dtype, shape),
    )  # fmt: skip
    rewriter.replace(node, rewriter.make(node, "Cast", [moved], dict(cast.attributes), merged=[cast]))
    return True


RULES = (
    Rule("cast-chain", ("Cast",), _rewrite),
    Rule("moved-cast", ("Transpose", *sorted(VIEWS)), _moved),
)
