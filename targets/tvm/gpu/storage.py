"""Numbers that are stored in fewer bits than they are computed with.

Kernels are written, fused and scheduled in float32. Here buffers become narrower: every load widens, every store rounds
to nearest, and what happens between the two (sums, softmax, means, activations) stays in float32. Weights that are
whole numbers of 8 bits are stored so, which loses nothing; where halves are asked for, the other weights and what
passes from one kernel to the next are float16, so that one rounding a tensor is lost (relative error 2^-11), whatever
the length of a sum.

OpenCL reads and writes halves through `vload_half` and `vstore_half`, which every device has: its arithmetic on halves
is an extension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm_ffi
from tvm import ir, tirx


def narrowed(function: tirx.PrimFunc, params: Mapping[int, str], kind: str) -> tirx.PrimFunc:
    """A device function whose parameters of these positions point to these types instead of float32."""
    pointers: dict[Any, Any] = {}
    types: dict[Any, str] = {}
    for index, dtype in params.items():
        param = function.params[index]
        types[param] = dtype
        pointers[param] = tirx.Var(param.name, ir.PointerType(ir.PrimType(dtype), "global"))
    buffers: dict[Any, Any] = {}

    def declare(value: Any, mutator: Any) -> Any:
        if value.data not in pointers:
            return mutator.default_mutate(value)
        pointer, dtype = pointers[value.data], types[value.data]
        buffers[value.buffer] = tirx.decl_buffer(value.buffer.shape, dtype, value.buffer.name, data=pointer)
        return tirx.DeclBuffer(buffers[value.buffer], data=pointer)

    def load(value: Any, mutator: Any) -> Any:
        if value.source not in buffers:
            return mutator.default_mutate(value)
        buffer, at = buffers[value.source], mutator.mutate(value.indices[0])
        if kind != "opencl" or str(buffer.dtype) != "float16":
            return tirx.BufferLoad(buffer, [at]).astype(str(value.ty.dtype))
        base, suffix = _ramp(at)
        where = tirx.address_of(tirx.BufferLoad(buffer, [base]))
        return tirx.call_pure_extern(str(value.ty.dtype), f"vload_half{suffix}", tirx.const(0, "int32"), where)

    def store(value: Any, mutator: Any) -> Any:
        if value.buffer not in buffers:
            return mutator.default_mutate(value)
        buffer, at, what = buffers[value.buffer], mutator.mutate(value.indices[0]), mutator.mutate(value.value)
        base, suffix = _ramp(at)
        if kind != "opencl":
            return tirx.BufferStore(buffer, what.astype("float16" + (f"x{suffix}" if suffix else "")), [at])
        where = tirx.address_of(tirx.BufferLoad(buffer, [base]))
        call = tirx.call_extern("int32", f"vstore_half{suffix}", what, tirx.const(0, "int32"), where)
        return tirx.Evaluate(call)

    callbacks = [(tirx.DeclBuffer, declare), (ir.expr.TensorLoad, load), (tirx.BufferStore, store)]
    body = tvm_ffi.structural.structural_mutate(function.body, callbacks)
    changed = [pointers.get(param, param) for param in function.params]
    return tirx.PrimFunc(changed, body, function.ret_type, function.attrs)


def _ramp(at: Any) -> tuple[Any, str]:
    """The first of some neighbours, and how many they are ("" for one)."""
    if type(at).__name__ != "Ramp":
        return at, ""
    return at.base, str(int(at.lanes))
