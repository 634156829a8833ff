"""Kernels that answer as IEEE 754 and two's complement say, for NaN, infinities and numbers that overflow, too.

TVM simplifies floats as if they were reals without NaN ((a + b) - b is a, not (a > b) is a <= b, a == a is true, x * 0
is 0), and integers of 32 and 64 bits as if they never overflowed; its `max` gives either number where one is NaN. So
operators are written, before anything is fused to them, in forms that none of its rules matches and that LLVM turns
into the same instructions:

    a - b               a + b * -1
    a == b              a <= b and a >= b; for bools int8(a) == int8(b)
    not c               int8(c) == 0
    max(x, constant)    constant where x < constant, else x; for CPUs max(constant, x), which is that

Operators on wide integers stay kernels of their own, with constants as operands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, te, tirx, topi

from .expressions import OPAQUE

Legalization: TypeAlias = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]

_WIDE = ("int32", "int64", "uint32", "uint64")
_FIRST = 4
"""Its number for a kernel that is fused to nothing before it (`kOutEWiseFusable`)."""
_PAIRS = (
    "add", "divide", "equal", "floor_divide", "floor_mod", "greater", "greater_equal", "left_shift", "less",
    "less_equal", "maximum", "minimum", "mod", "multiply", "not_equal", "power", "right_shift", "subtract",
)  # fmt: skip
"""Operators of two operands."""
_SINGLES = ("abs", "negative", "sign")


def legalizations() -> dict[str, Legalization]:
    """What operators become where TVM's own choice would be simplified into something else, for `LegalizeOps`."""
    rules: dict[str, Legalization] = {f"relax.{name}": _pair(name) for name in _PAIRS}
    rules |= {f"relax.{name}": _single(name) for name in _SINGLES}
    return rules


def _pair(name: str) -> Legalization:
    def legalize(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        from tvm.relax.transform.legalize_ops.common import _try_convert_to_scalar_const as scalar

        a, b = call.args
        dtype = str(a.ty.dtype.dtype)
        if dtype in _WIDE:
            return bb.call_te(getattr(topi, name), a, b, primfunc_attrs={"op_pattern": OPAQUE})
        if (
            name in ("maximum", "minimum")
            and dtype.startswith(("float", "bfloat"))
            and not (_is_number(a) or _is_number(b))
        ):
            return bb.call_te(extremes, a, b, largest=name == "maximum", primfunc_name_hint=name)
        if _is_number(b):
            b = scalar(b)
        elif _is_number(a):
            a = scalar(a)
        return bb.call_te(getattr(topi, name), a, b)

    return legalize


def _single(name: str) -> Legalization:
    def legalize(bb: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        wide = str(call.args[0].ty.dtype.dtype) in _WIDE
        attributes = {"op_pattern": OPAQUE} if wide else {}
        return bb.call_te(
            getattr(topi, name), call.args[0], primfunc_name_hint=f"tir_{name}", primfunc_attrs=attributes
        )

    return legalize


def _is_number(operand: relax.Expr) -> bool:
    """Whether an operand is a constant number that kernels may see: they would be simplified for a zero, an infinity
    or NaN."""
    if not isinstance(operand, ir.GenericConst):
        return False
    array = operand.value.numpy()
    return array.ndim == 0 and array != 0 and bool(np.isfinite(array.astype(np.float64)))


def extremes(a: te.Tensor, b: te.Tensor, *, largest: bool) -> te.Tensor:
    """The larger or smaller of each pair; NaN where one is."""
    from .rules.arithmetic import pairwise

    def pick(x: Any, y: Any) -> Any:
        return tirx.Select(tirx.any(y > x if largest else y < x, negation(equal(y, y))), y, x)

    return pairwise(a, b, pick, "extremes")


def equal(a: Any, b: Any) -> Any:
    """Whether floats are equal, also where both are the same expression: NaN is not."""
    return tirx.And(tirx.LE(a, b), tirx.GE(a, b))


def negation(condition: Any) -> Any:
    """That a condition is false, in a form that comparisons of floats are not turned round in."""
    return tirx.EQ(tirx.Cast("int8", condition), tirx.const(0, "int8"))


def spelled_out(mod: tvm.IRModule, *, once: bool) -> tvm.IRModule:
    """Kernels that are not fused yet, in the forms that are not simplified.

    With `once` a clamp reads its operand once: LLVM's code for TVM's `max(a, b)` is a where a > b, else b. In a row,
    those that read it twice are thousands of terms, which take the compiler minutes. Languages of GPUs leave open which
    of two their `max` gives where one is NaN.
    """
    for var, function in mod.functions_items():
        if isinstance(function, tirx.PrimFunc):
            kernel = _spelled(function, once)
            # A polynomial reads its operand dozens of times: one in the operand of another is thousands of terms.
            mod.update_func(
                var, kernel.with_attr("op_pattern", _FIRST) if var.name_hint.startswith("fast_") else kernel
            )
    return mod


def _spelled(function: tirx.PrimFunc, once: bool) -> tirx.PrimFunc:
    def subtraction(node: Any) -> Any:
        return tirx.Add(node.a, tirx.Mul(node.b, tirx.const(-1, _dtype(node.b)))) if _floats(node) else node

    def same(node: Any) -> Any:
        return _counted(node, tirx.EQ) if _truths(node) else equal(node.a, node.b) if _floats(node) else node

    def different(node: Any) -> Any:
        return _counted(node, tirx.NE) if _truths(node) else negation(equal(node.a, node.b)) if _floats(node) else node

    def opposite(node: Any) -> Any:
        return negation(node.a) if _reads(node.a) else node

    def extreme(node: Any) -> Any:
        if not _floats(node):
            return node
        for x, bound in ((node.a, node.b), (node.b, node.a)):
            if isinstance(bound, tirx.FloatImm):
                if once:
                    return type(node)(bound, x)
                beyond = tirx.LT(x, bound) if isinstance(node, tirx.Max) else tirx.GT(x, bound)
                return tirx.Select(beyond, bound, x)
        return node

    rules = [
        (tirx.Sub, subtraction),
        (tirx.EQ, same),
        (tirx.NE, different),
        (tirx.Not, opposite),
        ((tirx.Max, tirx.Min), extreme),
    ]
    return function.with_body(tvm_ffi.structural.structural_map(function.body, rules))


def without_nan(mod: tvm.IRModule) -> tvm.IRModule:
    """Scheduled kernels whose largest and least numbers are those of the numbers, as if no NaN were among them."""
    for var, function in mod.functions_items():
        if isinstance(function, tirx.PrimFunc):
            mod.update_func(var, _ordered(function))
    return mod


def _ordered(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Another number takes the place of the best one where it is better, which NaN is not."""

    def store(node: Any) -> Any:
        extreme = node.value
        if not isinstance(extreme, tirx.Max | tirx.Min) or not _floats(extreme):
            return node
        if node.buffer.scope() == "shared":  # threads reduce together what TVM knows as a reduction, and nothing else
            return node
        if not isinstance(extreme.a, ir.expr.TensorLoad) or not extreme.a.source.same_as(node.buffer):
            return node
        best, other = extreme.a, extreme.b
        better = tirx.GT(other, best) if isinstance(extreme, tirx.Max) else tirx.LT(other, best)
        return tirx.BufferStore(node.buffer, tirx.Select(better, other, best), node.indices)

    return function.with_body(tvm_ffi.structural.structural_map(function.body, [(tirx.BufferStore, store)]))


def _counted(node: Any, compare: Callable[[Any, Any], Any]) -> Any:
    """A comparison of truths as one of numbers: LLVM's code generator takes bools for floats."""
    return compare(tirx.Cast("int8", node.a), tirx.Cast("int8", node.b))


def _truths(node: Any) -> bool:
    return _dtype(node.a) == "bool"


def _floats(node: Any) -> bool:
    return _dtype(node.a).startswith(("float", "bfloat"))


def _dtype(expr: Any) -> str:
    return str(expr.ty.dtype) if hasattr(expr, "ty") else str(expr.dtype)


def _reads(condition: Any) -> bool:
    """Whether a condition depends on data, not on places alone."""
    reads = False

    def load(node: Any) -> Any:
        nonlocal reads
        reads = True
        return node

    tvm_ffi.structural.structural_map(condition, [(ir.expr.TensorLoad, load)])
    return reads
