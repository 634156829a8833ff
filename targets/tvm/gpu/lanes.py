"""Which loops of a kernel become vectors.

Vectors are of numbers of 32 bits that lie side by side, and ask no condition but a comparison of floats: what else TVM
writes of them is not what it means. A condition that all lanes share becomes a vector of ones, and OpenCL's `select`
looks at the highest bit of each lane; four bytes that are gathered become one integer, CUDA's way; booleans have no
vectors. Such loops are written out instead, one lane after the other, which is right in every language.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import ir, sym, tirx

_WORDS = ("float32", "int32")


def wide_where_right(function: tirx.PrimFunc, half: bool) -> tirx.PrimFunc:
    """A function whose vector loops are only those that can be; with `half`, floats may be stored in 16 bits.

    A choice between two vectors by one condition becomes a branch, whose condition stays one.
    """
    ranges = _ranges(function)

    def settled(loop: Any, mutator: Any) -> Any:
        if loop.kind != tirx.ForKind.VECTORIZED:
            return mutator.default_mutate(loop)
        body = _branched(loop)
        if _fits(body, loop.loop_var) and not _scattered(body, loop.loop_var, ranges, half):
            return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.VECTORIZED, body)
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.UNROLLED, mutator.mutate(loop.body))

    return function.with_body(tvm_ffi.structural.structural_mutate(function.body, [(tirx.For, settled)]))


def _ranges(function: tirx.PrimFunc) -> dict[Any, Any]:
    """What the variables of loops and threads run over."""
    ranges: dict[Any, Any] = {}

    def loop(value: Any) -> Any:
        ranges[value.loop_var] = ir.Range(0, value.extent)
        return value

    def threads(value: Any) -> Any:
        if value.attr_key == "thread_extent":
            ranges[value.node.var] = ir.Range(0, value.value)
        return value

    tvm_ffi.structural.structural_map(function.body, [(tirx.AttrStmt, threads), (tirx.For, loop)])
    return ranges


def _branched(loop: Any) -> Any:
    """The body of a loop in which choices that do not depend on the lane are branches."""

    def branch(value: Any) -> Any:
        if _reads(value.condition, loop.loop_var):
            return value
        return tirx.if_then_else(value.condition, value.true_value, value.false_value)

    return tvm_ffi.structural.structural_map(loop.body, [(tirx.Select, branch)])


def _fits(body: Any, lane: Any) -> bool:
    """Whether every number that differs from lane to lane has 32 bits, and every condition is one that may be asked."""
    compares = (tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.EQ, tirx.NE)
    allowed: list[Any] = []
    fits = True

    def choice(value: Any, mutator: Any) -> Any:
        condition = value.condition
        if isinstance(condition, compares) and {_dtype(condition.a), _dtype(condition.b), _dtype(value)} == {"float32"}:
            allowed.append(condition)
        return mutator.default_mutate(value)

    def look(value: Any, mutator: Any) -> Any:
        nonlocal fits
        dtype = _dtype(value)
        if dtype and dtype not in _WORDS and _reads(value, lane) and not any(value.same_as(one) for one in allowed):
            fits = False
        if isinstance(value, ir.expr.Call) and getattr(value.op, "name", "") == "tirx.reinterpret":
            fits = False
        return mutator.default_mutate(value)

    def stored(value: Any, mutator: Any) -> Any:
        nonlocal fits
        fits = fits and str(value.buffer.dtype) in _WORDS
        return mutator.default_mutate(value)

    entries = [(tirx.Select, choice), (tirx.BufferStore, stored), (ir.expr.Expr, look)]
    tvm_ffi.structural.structural_mutate(body, entries)
    return fits


def _scattered(body: Any, lane: Any, ranges: dict[Any, Any], half: bool) -> bool:
    """Whether floats that may be stored as halves, which are read by fours from one address, lie apart."""
    if not half:
        return False
    places: list[Any] = []

    def look(value: Any) -> Any:
        buffer = value.buffer if isinstance(value, tirx.BufferStore) else value.source
        if str(buffer.dtype) == "float32":
            places.extend(value.indices)
        return value

    def first(var: Any) -> Any:
        return tirx.const(0, str(lane.ty.dtype)) if var.same_as(lane) else var

    tvm_ffi.structural.structural_map(body, [(ir.expr.TensorLoad, look), (tirx.BufferStore, look)])
    analyzer = sym.Analyzer()
    for var, reach in ranges.items():
        analyzer.bind(var, reach)
    for at in places:
        start = tvm_ffi.structural.structural_map(at, [(tirx.Var, first)])
        if not (analyzer.can_prove_equal(at, start) or analyzer.can_prove_equal(at, start + lane)):
            return True
    return False


def _reads(expr: Any, var: Any) -> bool:
    seen = False

    def note(one: Any) -> Any:
        nonlocal seen
        seen = seen or bool(one.same_as(var))
        return one

    tvm_ffi.structural.structural_map(expr, [(tirx.Var, note)])
    return seen


def _dtype(expr: Any) -> str:
    """The element type of a number, empty for what is none."""
    dtype = getattr(getattr(expr, "ty", None), "dtype", None)
    return "" if dtype is None else str(dtype)
