"""Casts to and from numbers of eight bits, to bfloat16, and of bits as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from .....ir.types import DType
from ..conditions import EIGHTS
from ..expressions import constant
from .call import LoweringCall


def lower_cast(call: LoweringCall) -> relax.Expr | None:
    source, wanted = call.value(0).dtype, call.node.outputs[0].dtype
    if source is None or wanted is None or source is wanted:
        return None if source is None or source is not wanted else call.expr(0)
    x = call.expr(0)
    if source in EIGHTS:
        x = call.te(decoded, call.te(bits, x), _values(call, source))
        return call.cast(x, call.dtype())
    if wanted in EIGHTS:
        return _encoded(call, x, wanted)
    if wanted is DType.BFLOAT16:
        return call.te(to_bfloat16, call.cast(x, "float32"), pattern=0)
    if source is DType.DOUBLE and wanted is DType.FLOAT16:
        return call.cast(call.te(to_odd, x, pattern=0), "float16")
    if wanted is DType.BOOL:
        return call.te(truth, x, pattern=0)
    if source is DType.BFLOAT16 and not wanted.is_float:
        return call.cast(call.cast(x, "float32"), call.dtype())
    return None


def truth(x: te.Tensor) -> te.Tensor:
    return te.compute(x.shape, lambda *i: x[i] != tirx.const(0, x.dtype), name="truth")


def to_bfloat16(x: te.Tensor) -> te.Tensor:
    """The nearest bfloat16, the even one of two: what is added carries into the upper half of the bits."""

    def at(*i: Any) -> Any:
        word = tirx.reinterpret("uint32", x[i])
        odd = (word >> tirx.const(16, "uint32")) & tirx.const(1, "uint32")
        carried = (word + tirx.const(0x7FFF, "uint32") + odd) >> tirx.const(16, "uint32")
        upper = tirx.Select(tirx.isnan(x[i]), tirx.const(0x7FC0, "uint32"), carried)
        return tirx.reinterpret("bfloat16", upper.astype("uint16"))

    return te.compute(x.shape, at, name="to_bfloat16")


def to_odd(x: te.Tensor) -> te.Tensor:
    """Doubles as floats, rounded to the odd one of two neighbours: what is rounded again is as if it were rounded once,
    for which 32-bit ARM has neither an instruction nor a function."""

    def at(*i: Any) -> Any:
        near = x[i].astype("float32")
        word, one = tirx.reinterpret("int32", near), tirx.const(1, "int32")
        beyond = tirx.abs(near.astype("float64")) > tirx.abs(x[i])
        inexact = tirx.any(near.astype("float64") < x[i], near.astype("float64") > x[i])
        odd = tirx.Select(beyond, word - one, word) | one
        return tirx.reinterpret("float32", tirx.Select(inexact, odd, word))

    return te.compute(x.shape, at, name="to_odd")


def bits(x: te.Tensor, *, dtype: str = "uint8") -> te.Tensor:
    return te.compute(x.shape, lambda *i: tirx.reinterpret(dtype, x[i]), name="bits")


def decoded(codes: te.Tensor, values: te.Tensor) -> te.Tensor:
    return te.compute(codes.shape, lambda *i: values[codes[i].astype("int32")], name="decoded")


def _values(call: LoweringCall, dtype: DType) -> relax.Expr:
    return constant(np.arange(256, dtype=np.uint8).view(dtype.numpy).astype(np.float32))


def _encoded(call: LoweringCall, x: relax.Expr, wanted: DType) -> relax.Expr:
    """The code of the nearest value: as many as there are bounds between neighbours below the number."""
    unsigned = wanted in (DType.FLOAT8E4M3FNUZ, DType.FLOAT8E5M2FNUZ)
    values = np.arange(128, dtype=np.uint8).view(wanted.numpy).astype(np.float64)
    finite = values[np.isfinite(values)]
    steps = np.append(finite, finite[-1] + (finite[-1] - finite[-2]))
    bounds = ((steps[1:] + steps[:-1]) / 2).astype(np.float32)
    nan = 0x80 if unsigned else 0x7F
    beyond = len(finite) - 1
    if not call.node.get_int("saturate", 1):
        beyond = 0x7C if wanted is DType.FLOAT8E5M2 else nan
    x = call.cast(x, "float32")
    codes = call.te(
        encoded, x, constant(bounds), most=len(finite) - 1, beyond=beyond, nan=nan, signed_zero=not unsigned
    )
    return call.te(bits, codes, dtype=str(wanted.numpy.name))


def encoded(x: te.Tensor, bounds: te.Tensor, *, most: int, beyond: int, nan: int, signed_zero: bool) -> te.Tensor:
    k = te.reduce_axis((0, bounds.shape[0]), "k")

    def above(*i: Any) -> Any:
        size = tirx.abs(x[i])
        # A number on a bound goes to the even one of two codes.
        over = tirx.any(size > bounds[k], tirx.all(size == bounds[k], k % 2 == 1))
        return te.sum(over.astype("int32"), axis=k)

    counts = te.compute(x.shape, above, name="counts")

    def code(*i: Any) -> Any:
        size = tirx.Select(counts[i] > most, tirx.const(beyond, "int32"), counts[i])
        negative = tirx.reinterpret("int32", x[i]) < 0
        sign = tirx.Select(negative, tirx.const(128, "int32"), tirx.const(0, "int32"))
        signed = size | sign if signed_zero else tirx.Select(size == 0, size, size | sign)
        return tirx.Select(tirx.isnan(x[i]), tirx.const(nan, "int32"), signed).astype("uint8")

    return te.compute(x.shape, code, name="encoded")


def lower_bit_cast(call: LoweringCall) -> relax.Expr:
    return call.te(bits, call.expr(0), dtype=call.dtype())
