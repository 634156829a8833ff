"""Halves in OpenCL: memory alone, since its arithmetic on them is an extension.

They are read as float32, computed with so, and rounded where they are stored, or where the model casts to them.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import ir, tirx

ROUND = "to_half"
"""The function that rounds a number as storing it would."""
ROUND_SOURCE = f"""float {ROUND}(float x) {{
  ushort bits;
  vstore_half(x, 0, (__private half *)&bits);
  return vload_half(0, (__private half *)&bits);
}}
"""


def in_single(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """A flat device function, without vectors of halves, that computes with none."""
    seen = False

    def note(value: Any) -> Any:
        nonlocal seen
        seen = seen or _is_half(value)
        return value

    tvm_ffi.structural.structural_map(function.body, [(ir.expr.Expr, note)])
    if not seen:
        return function
    rewrite = _Single()
    entries = [
        (tirx.DeclBuffer, rewrite.declare),
        (tirx.AllocBuffer, rewrite.allocate),
        (ir.expr.TensorLoad, rewrite.load),
        (tirx.BufferStore, rewrite.store),
        (tirx.Cast, rewrite.cast),
        (tirx.FloatImm, rewrite.number),
        (tirx.Select, rewrite.choice),
        (ir.expr.Call, rewrite.call),
        *((pair, rewrite.pair) for pair in (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Max, tirx.Min)),
    ]
    return function.with_body(tvm_ffi.structural.structural_mutate(function.body, entries))


def _is_half(value: Any) -> bool:
    return str(getattr(getattr(value, "ty", None), "dtype", "")) == "float16"


class _Single:
    """One rule for each kind of node. `memory` holds buffers of halves, `single` those that became float32."""

    def __init__(self) -> None:
        self.memory: set[Any] = set()
        self.single: dict[Any, Any] = {}

    def declare(self, value: Any, mutator: Any) -> Any:
        if str(value.buffer.dtype) == "float16":
            self.memory.add(value.buffer)
        return mutator.default_mutate(value)

    def allocate(self, value: Any, mutator: Any) -> Any:
        old = value.buffer
        if str(old.dtype) != "float16":
            return mutator.default_mutate(value)
        self.single[old] = tirx.decl_buffer(old.shape, "float32", old.name, scope=old.scope())
        return tirx.AllocBuffer(self.single[old], value.annotations)

    def load(self, value: Any, mutator: Any) -> Any:
        indices = [mutator.mutate(one) for one in value.indices]
        if value.source in self.single:
            return tirx.BufferLoad(self.single[value.source], indices)
        if value.source not in self.memory:
            return mutator.default_mutate(value)
        where = tirx.address_of(tirx.BufferLoad(value.source, indices))
        return tirx.call_pure_extern("float32", "vload_half", tirx.const(0, "int32"), where)

    def store(self, value: Any, mutator: Any) -> Any:
        indices, what = [mutator.mutate(one) for one in value.indices], value.value
        if value.buffer in self.single:
            return tirx.BufferStore(self.single[value.buffer], mutator.mutate(what), indices)
        if value.buffer not in self.memory:
            return mutator.default_mutate(value)
        # What stores rounds: a Cast need not.
        wide = mutator.mutate(what.value).astype("float32") if isinstance(what, tirx.Cast) else mutator.mutate(what)
        where = tirx.address_of(tirx.BufferLoad(value.buffer, indices))
        return tirx.Evaluate(tirx.call_extern("int32", "vstore_half", wide, tirx.const(0, "int32"), where))

    def cast(self, value: Any, mutator: Any) -> Any:
        inner = mutator.mutate(value.value)
        if _is_half(value):
            return tirx.call_pure_extern("float32", ROUND, inner.astype("float32"))
        return inner.astype(str(value.ty.dtype)) if _is_half(value.value) else mutator.default_mutate(value)

    def number(self, value: Any, mutator: Any) -> Any:
        return tirx.const(float(value.value), "float32") if _is_half(value) else value

    def pair(self, value: Any, mutator: Any) -> Any:
        return type(value)(mutator.mutate(value.a), mutator.mutate(value.b))

    def choice(self, value: Any, mutator: Any) -> Any:
        parts = (value.condition, value.true_value, value.false_value)
        return tirx.Select(*(mutator.mutate(part) for part in parts))

    def call(self, value: Any, mutator: Any) -> Any:
        if not _is_half(value):
            return mutator.default_mutate(value)
        return tirx.call_intrin("float32", value.op, *(mutator.mutate(one) for one in value.args))
