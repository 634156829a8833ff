"""The instructions of `machine.Dot` as what TVM calls tensor intrinsics: a block of sums, and products of neighbours.

Each is written for a block of `b` sums: it reads `terms` codes of an activation, which are spread over a register, and
`b` times `terms` codes of weights that stand in the order of the register's lanes.
"""

# The bodies of kernels read the types of their arguments, so they are no strings here.
from collections.abc import Callable
from typing import Any

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T  # noqa: N812 - as every kernel of TVM is written

from ..machine import Machine


def register(machine: Machine) -> str:
    """Make the machine's instruction known to TVM; returns the name to tensorize with."""
    dot = machine.dot
    if dot is None:
        raise ValueError(f"{machine.name} has no instruction for integers")
    arm32 = machine.triple.startswith("arm")
    name = f"optc.{dot.name}.{machine.lanes}.{machine.block}{'.arm' if arm32 else ''}"
    body = _BODIES[dot.name](machine)
    description, kernel = _kernels(machine.block, machine.lanes, dot.terms, dot.codes, body)
    TensorIntrin.register(name, description, kernel, override=True)
    return name


def _kernels(block: int, lanes: int, terms: int, codes: str, body: Callable[..., Any]) -> tuple[Any, Any]:
    vectors = block // lanes
    width = lanes * terms

    @T.prim_func(s_tir=True)
    def description(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (terms,), dtype=codes, offset_factor=1)
        B = T.match_buffer(b, (block, terms), dtype="int8", offset_factor=1)
        C = T.match_buffer(c, (block,), dtype="int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:block], A[0:terms], B[0:block, 0:terms])
            T.writes(C[0:block])
            for i in T.serial(0, block):
                for k in T.serial(0, terms):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(B[vi, vk], "int32")

    @T.prim_func(s_tir=True)
    def kernel(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (terms,), dtype=codes, offset_factor=1)
        B = T.match_buffer(b, (block, terms), dtype="int8", offset_factor=1)
        C = T.match_buffer(c, (block,), dtype="int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:block], A[0:terms], B[0:block, 0:terms])
            T.writes(C[0:block])
            for v in T.unroll(vectors):
                C[T.ramp(v * lanes, 1, lanes)] = body(
                    C.vload([v * lanes], dtype=f"int32x{lanes}"),
                    A.vload([0], dtype=f"{codes}x{terms}"),
                    B.vload([v * lanes, 0], dtype=f"int8x{width}"),
                )

    return description, kernel


def _call(name: str, dtype: str, *arguments: Any) -> Any:
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(name), *arguments, dtype=dtype)


def _spread(x: Any, lanes: int, one: str, all_: str) -> Any:
    """A few codes, repeated for every lane of a register."""
    return T.reinterpret(T.broadcast(T.reinterpret(x, dtype=one), lanes), dtype=all_)


def _sdot(machine: Machine) -> Callable[..., Any]:
    def body(sums: Any, x: Any, w: Any) -> Any:
        return _call("llvm.aarch64.neon.sdot.v4i32.v16i8", "int32x4", sums, _spread(x, 4, "int32", "int8x16"), w)

    return body


def _smull(machine: Machine) -> Callable[..., Any]:
    arm32 = machine.triple.startswith("arm")

    def body(sums: Any, x: Any, w: Any) -> Any:
        pair = _spread(x, 4, "int16", "int8x8")
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
        pair = _spread(x, lanes, "int32", f"int16x{2 * lanes}")
        return sums + _call(name, f"int32x{lanes}", pair, T.cast(w, f"int16x{2 * lanes}"))

    return body


def _vpdpbusd(machine: Machine) -> Callable[..., Any]:
    lanes = machine.lanes

    def body(sums: Any, x: Any, w: Any) -> Any:
        four = _spread(x, lanes, "int32", f"uint8x{4 * lanes}")
        return _call(f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", f"int32x{lanes}", sums, four, w)

    return body


_BODIES: dict[str, Callable[[Machine], Callable[..., Any]]] = {
    "sdot": _sdot,
    "smull": _smull,
    "pmaddwd": _pmaddwd,
    "vpdpbusd": _vpdpbusd,
}
