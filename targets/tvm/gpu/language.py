"""What a kernel says, in the words that its language has.

TVM knows some of the functions of OpenCL, Metal and WebGPU and writes those of C for the others (`tanf`), which none of
them has. Here every function gets the name that the language gives it, or is written with those that it has. Integers
of 8 and 16 bits are computed with in 32, as C does, but wrap at each step, as ONNX says; and a choice between truths,
which `select` does not take, is spelled with and and or.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import ir, tirx

_ROUNDED = ("ceil", "floor", "trunc")
_ARCS = ("acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "sin", "sinh", "tan")
_POWERS = ("exp", "exp2", "log", "log2", "sqrt")
_SHARED = {name: name for name in (*_ROUNDED, *_ARCS, *_POWERS)}
_C = {**_SHARED, "copysign": "copysign", "exp10": "exp10", "fabs": "fabs", "fmod": "fmod", "log10": "log10",
      "nearbyint": "rint", "nextafter": "nextafter", "pow": "pow", "round": "rint"}  # fmt: skip
WORDS = {
    "opencl": {**_C, "erf": "erf", "hypot": "hypot", "ldexp": "ldexp", "popcount": "popcount", "tanh": "tanh"},
    "metal": {**_C, "ldexp": "ldexp", "popcount": "popcount"},
    "webgpu": {**_SHARED, "fabs": "abs", "nearbyint": "round", "popcount": "countOneBits", "round": "round"},
}
"""What each language calls the functions of TVM. Not in it is what TVM writes out itself, or `_WRITTEN` does."""
_NARROW = ("int8", "uint8", "int16", "uint16")


def spelled(function: tirx.PrimFunc, kind: str) -> tirx.PrimFunc:
    """A device function whose calls are those of the language `kind`."""
    words = WORDS[kind]

    def call(value: Any) -> Any:
        name, numbers = str(getattr(value.op, "name", "")).removeprefix("tirx."), list(value.args)
        said = str(numbers[0].value) if name == "call_pure_extern" else ""
        if said.endswith("f") and said[:-1] in (*_C, *_WRITTEN):
            # C's name of it, by which TVM itself lowers others.
            name, *numbers = said[:-1], *numbers[1:]
        if name in words:
            return tirx.call_pure_extern(str(value.ty.dtype), words[name], *numbers)
        if kind != "opencl" and name == "isnan":
            return _is_nan(value.args[0])
        written = _WRITTEN.get(name)
        return value if written is None else written(*numbers)

    def choice(value: Any) -> Any:
        if str(value.ty.dtype) != "bool":
            return value
        first, second = tirx.And(value.condition, value.true_value), tirx.Not(value.condition)
        return tirx.Or(first, tirx.And(second, value.false_value))

    def wrapped(value: Any) -> Any:
        dtype = str(value.ty.dtype)
        if dtype not in _NARROW or kind == "webgpu":
            return value
        return type(value)(value.a.astype("int32"), value.b.astype("int32")).astype(dtype)

    entries = [(ir.expr.Call, call), (tirx.Select, choice), *((one, wrapped) for one in (tirx.Add, tirx.Sub, tirx.Mul))]
    return function.with_body(tvm_ffi.structural.structural_map(function.body, entries))


def _is_nan(x: Any) -> Any:
    """Asked of the bits: these compilers may take it that numbers are numbers."""
    if str(x.ty.dtype) != "float32":
        return tirx.isnan(x)
    bits = tirx.reinterpret("uint32", x)
    return tirx.bitwise_and(bits, tirx.const(0x7FFFFFFF, "uint32")) > tirx.const(0x7F800000, "uint32")


def _power(x: Any, y: Any) -> Any:
    """WebGPU's `pow` knows no negative base; the root of one is what no power is."""
    dtype = str(x.ty.dtype)
    zero, one, two = (tirx.const(number, dtype) for number in (0.0, 1.0, 2.0))

    def call(name: str, *numbers: Any) -> Any:
        return tirx.call_pure_extern(dtype, name, *numbers)

    size = call("pow", call("abs", x), y)
    odd, whole = tirx.EQ(y - two * call("floor", y / two), one), tirx.EQ(call("floor", y), y)
    below = tirx.Select(odd, zero - size, tirx.Select(whole, size, call("sqrt", x)))
    return tirx.Select(tirx.EQ(y, zero), one, tirx.Select(x < zero, below, size))


def _scaled(name: str, factor: float) -> Any:
    def written(x: Any) -> Any:
        return tirx.call_pure_extern(str(x.ty.dtype), name, x) * tirx.const(factor, str(x.ty.dtype))

    return written


def _remainder(x: Any, y: Any) -> Any:
    return x - y * tirx.call_pure_extern(str(x.ty.dtype), "trunc", x / y)


def _hypot(x: Any, y: Any) -> Any:
    return tirx.call_pure_extern(str(x.ty.dtype), "sqrt", x * x + y * y)


_WRITTEN = {"fmod": _remainder, "hypot": _hypot, "log10": _scaled("log", 0.4342944819032518), "pow": _power}
