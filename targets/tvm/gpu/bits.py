"""bfloat16 and floats of 8 bits on GPUs: their bits in integers, which every language has.

Kernels that work on them take them apart by bits already (see `rules.casts`); what is left is how they lie in memory.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import ir, tirx


def as_bits(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """A flat device function whose buffers of such numbers hold their bits."""
    rewrite = _Bits()
    for param in function.params:
        kind = _kind(getattr(getattr(param.ty, "element_type", None), "dtype", ""))
        if kind:
            rewrite.pointers[param] = tirx.Var(param.name, ir.PointerType(ir.PrimType(kind), "global"))
    if not rewrite.pointers:
        return function
    entries = [
        (tirx.DeclBuffer, rewrite.declare),
        (ir.expr.TensorLoad, rewrite.load),
        (tirx.BufferStore, rewrite.store),
        (tirx.Cast, rewrite.cast),
        (ir.expr.Call, rewrite.call),
    ]
    body = tvm_ffi.structural.structural_mutate(function.body, entries)
    params = [rewrite.pointers.get(param, param) for param in function.params]
    return tirx.PrimFunc(params, body, function.ret_type, function.attrs)


def _kind(dtype: object) -> str:
    """The integer that holds a number, nothing where it is none of these."""
    text = str(dtype)
    return "uint16" if text == "bfloat16" else "uint8" if text.startswith("float8") else ""


class _Bits:
    """One rule for each kind of node."""

    def __init__(self) -> None:
        self.pointers: dict[Any, Any] = {}
        self.buffers: dict[Any, Any] = {}

    def declare(self, value: Any, mutator: Any) -> Any:
        if value.data not in self.pointers:
            return mutator.default_mutate(value)
        old, pointer = value.buffer, self.pointers[value.data]
        self.buffers[old] = tirx.decl_buffer(old.shape, _kind(old.dtype), old.name, data=pointer)
        return tirx.DeclBuffer(self.buffers[old], data=pointer)

    def load(self, value: Any, mutator: Any) -> Any:
        if value.source not in self.buffers:
            return mutator.default_mutate(value)
        return tirx.BufferLoad(self.buffers[value.source], [mutator.mutate(one) for one in value.indices])

    def store(self, value: Any, mutator: Any) -> Any:
        if value.buffer not in self.buffers:
            return mutator.default_mutate(value)
        indices = [mutator.mutate(one) for one in value.indices]
        return tirx.BufferStore(self.buffers[value.buffer], mutator.mutate(value.value), indices)

    def cast(self, value: Any, mutator: Any) -> Any:
        if str(value.value.ty.dtype) != "bfloat16":
            return mutator.default_mutate(value)
        # A bfloat16 is the upper half of a float.
        word = tirx.shift_left(mutator.mutate(value.value).astype("uint32"), tirx.const(16, "uint32"))
        return tirx.reinterpret("float32", word).astype(str(value.ty.dtype))

    def call(self, value: Any, mutator: Any) -> Any:
        if getattr(value.op, "name", "") != "tirx.reinterpret":
            return mutator.default_mutate(value)
        dtype, inner = _kind(value.ty.dtype) or str(value.ty.dtype), mutator.mutate(value.args[0])
        return inner if str(inner.ty.dtype) == dtype else tirx.reinterpret(dtype, inner)
