"""The instructions of `machine.Dot` as what TVM calls tensor intrinsics: a block of sums, and products of neighbours.

Each is written for a block of `b` sums: it reads `terms` codes of an activation, which are spread over a register, and
`b` times `terms` codes of weights that stand in the order of the register's lanes. With `groups` it does so that many
times, and reads the codes of all of them at once: ARM spreads a lane of a register where it is used.
"""

# The bodies of kernels read the types of their arguments, so they are no strings here.
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T  # noqa: N812 - as every kernel of TVM is written

from ..cpu.machine import Machine


def register(machine: Machine, groups: int = 1) -> str:
    """Make the machine's instruction known to TVM; returns the name to tensorize with."""
    dot = machine.dot
    if dot is None:
        raise ValueError(f"{machine.name} has no instruction for integers")
    arm32 = machine.triple.startswith("arm")
    name = f"optc.{dot.name}.{machine.lanes}.{machine.block}.{groups}{'.arm' if arm32 else ''}"
    body = _BODIES[dot.name](machine)
    description, kernel = _kernels(machine, groups, body)
    TensorIntrin.register(name, description, kernel, override=True)
    return name


def _kernels(machine: Machine, groups: int, body: Callable[..., Any]) -> tuple[Any, Any]:
    dot, block, lanes = machine.dot, machine.block, machine.lanes
    assert dot is not None
    terms, codes, vectors = dot.terms, dot.codes, machine.vectors
    width, taken = lanes * terms, terms * groups
    shape = (groups, block, terms) if groups > 1 else (block, terms)
    whole = tuple(slice(0, size) for size in shape)
    bits = np.dtype(codes).itemsize * 8 * terms

    def summed(sums: Any, x: Any, w: Any, v: Any) -> Any:
        """The sums and all products of one register of them; `x` are the codes, `w` the buffer of weights."""
        for group in range(groups):
            one = T.reinterpret(x, dtype=f"int{bits}" if groups == 1 else f"int{bits}x{groups}")
            if groups > 1:
                one = T.Shuffle([one], [group])
            sums = body(sums, one, w.vload([group, v * lanes, 0][-len(shape) :], dtype=f"int8x{width}"))
        return sums

    @T.prim_func(s_tir=True)
    def kernel(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (taken,), dtype=codes, offset_factor=1)
        B = T.match_buffer(b, shape, dtype="int8", offset_factor=1)
        C = T.match_buffer(c, (block,), dtype="int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:block], A[0:taken], B[whole])
            T.writes(C[0:block])
            for v in T.unroll(vectors):
                C[T.ramp(v * lanes, 1, lanes)] = summed(
                    C.vload([v * lanes], dtype=f"int32x{lanes}"), A.vload([0], dtype=f"{codes}x{taken}"), B, v
                )

    return _several(machine, groups) if groups > 1 else _one(machine), kernel


def _one(machine: Machine) -> Any:
    dot, block = machine.dot, machine.block
    assert dot is not None
    terms, codes = dot.terms, dot.codes

    @T.prim_func(s_tir=True)
    def description(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (terms,), dtype=codes, offset_factor=1)
        B = T.match_buffer(b, (block, terms), dtype="int8", offset_factor=1)
        C = T.match_buffer(c, (block,), dtype="int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:block], A[0:terms], B[0:block, 0:terms])
            T.writes(C[0:block])
            for i, k in T.grid(block, terms):
                with T.sblock("update"):
                    vi, vk = T.axis.remap("SR", [i, k])
                    C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(B[vi, vk], "int32")

    return description


def _several(machine: Machine, groups: int) -> Any:
    dot, block = machine.dot, machine.block
    assert dot is not None
    terms, codes, taken = dot.terms, dot.codes, dot.terms * groups

    @T.prim_func(s_tir=True)
    def description(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (taken,), dtype=codes, offset_factor=1)
        B = T.match_buffer(b, (groups, block, terms), dtype="int8", offset_factor=1)
        C = T.match_buffer(c, (block,), dtype="int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:block], A[0:taken], B[0:groups, 0:block, 0:terms])
            T.writes(C[0:block])
            for g, i, k in T.grid(groups, block, terms):
                with T.sblock("update"):
                    vi, vg, vk = T.axis.remap("SRR", [i, g, k])
                    C[vi] = C[vi] + T.cast(A[vg * terms + vk], "int32") * T.cast(B[vg, vi, vk], "int32")

    return description


def _call(name: str, dtype: str, *arguments: Any) -> Any:
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(name), *arguments, dtype=dtype)


def _spread(x: Any, lanes: int, dtype: str) -> Any:
    """A few codes, held as one integer, repeated for every lane of a register."""
    return T.reinterpret(T.broadcast(x, lanes), dtype=dtype)


def _sdot(machine: Machine) -> Callable[..., Any]:
    def body(sums: Any, x: Any, w: Any) -> Any:
        return _call("llvm.aarch64.neon.sdot.v4i32.v16i8", "int32x4", sums, w, _spread(x, 4, "int8x16"))

    return body


def _smull(machine: Machine) -> Callable[..., Any]:
    arm32 = machine.triple.startswith("arm")

    def body(sums: Any, x: Any, w: Any) -> Any:
        pair = _spread(x, 4, "int8x8")
        if arm32:
            products = _call("llvm.arm.neon.vmulls.v8i16", "int16x8", pair, w)
            return _call("llvm.arm.neon.vpadals.v4i32.v8i16", "int32x4", sums, products)
        products = _call("llvm.aarch64.neon.smull.v8i16", "int16x8", pair, w)
        return sums + _call("llvm.aarch64.neon.saddlp.v4i32.v8i16", "int32x4", products)

    return body


def _pmaddwd(machine: Machine) -> Callable[..., Any]:
    lanes = machine.lanes
    name = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[lanes]

    def body(sums: Any, x: Any, w: Any) -> Any:
        pair = _spread(x, lanes, f"int16x{2 * lanes}")
        return sums + _call(name, f"int32x{lanes}", pair, T.cast(w, f"int16x{2 * lanes}"))

    return body


def _vpdpbusd(machine: Machine) -> Callable[..., Any]:
    lanes = machine.lanes

    def body(sums: Any, x: Any, w: Any) -> Any:
        four = _spread(x, lanes, f"uint8x{4 * lanes}")
        return _call(f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", f"int32x{lanes}", sums, four, w)

    return body


_BODIES: dict[str, Callable[[Machine], Callable[..., Any]]] = {
    "sdot": _sdot,
    "smull": _smull,
    "pmaddwd": _pmaddwd,
    "vpdpbusd": _vpdpbusd,
}
