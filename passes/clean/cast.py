"""Chains of Casts.

    Cast<c>(Cast<b>(x: a))   ->   Cast<c>(x), or x if c is a        where every number of type a is one of type b

Exact because the inner cast loses nothing, so the outer one starts from the same number. Does not fire where the
inner cast rounds or wraps (float to half, int64 to int32, float to int), for strings, or for the 8-bit floats, whose
saturation is an attribute, nor where others read the value in between and the result is not x: nothing would be saved.
"""

from __future__ import annotations

from ...ir.node import Node
from ...ir.types import DType
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


RULE = Rule("cast-chain", ("Cast",), _rewrite)
