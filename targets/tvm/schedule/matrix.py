"""Contractions by an instruction that multiplies small matrices: 2 x 8 codes of activations by 8 x 2 of weights."""

# The bodies of kernels read the types of their arguments, so they are no strings here.
from typing import Any

from tvm import s_tir
from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T  # noqa: N812 - as every kernel of TVM is written

from ..cpu.machine import Machine
from .blocks import annotated, blocks_of, called, extent, inline_injective
from .tiled import Tiled


def register(machine: Machine) -> str:
    """Make the machine's instruction known to TVM; returns the name to tensorize with."""
    dot = machine.matrix
    if dot is None:
        raise ValueError(f"{machine.name} has no instruction for matrices")
    rows, terms = dot.rows, dot.terms
    number = f"llvm.aarch64.neon.{dot.name}.v4i32.v16i8"

    @T.prim_func(s_tir=True)
    def description(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (rows, terms), "int8", offset_factor=1)
        B = T.match_buffer(b, (rows, terms), "int8", offset_factor=1)
        C = T.match_buffer(c, (rows, rows), "int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:rows, 0:rows], A[0:rows, 0:terms], B[0:rows, 0:terms])
            T.writes(C[0:rows, 0:rows])
            for i, j, k in T.grid(rows, rows, terms):
                with T.sblock("update"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    C[vi, vj] = C[vi, vj] + T.cast(A[vi, vk], "int32") * T.cast(B[vj, vk], "int32")

    @T.prim_func(s_tir=True)
    def kernel(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (rows, terms), "int8", offset_factor=1)
        B = T.match_buffer(b, (rows, terms), "int8", offset_factor=1)
        C = T.match_buffer(c, (rows, rows), "int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:rows, 0:rows], A[0:rows, 0:terms], B[0:rows, 0:terms])
            T.writes(C[0:rows, 0:rows])
            C[0, T.ramp(0, 1, 4)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(number),
                C.vload([0, 0], dtype="int32x4"),
                A.vload([0, 0], dtype="int8x16"),
                B.vload([0, 0], dtype="int8x16"),
                dtype="int32x4",
            )

    name = f"optc.{dot.name}"
    TensorIntrin.register(name, description, kernel, override=True)
    return name


class Matrix(Tiled):
    """The rule for kernels that have a stage of sums with the annotation `optc.rows`."""

    def schedule(self, sch: s_tir.Schedule) -> s_tir.Schedule | None:
        if (stage := annotated(sch, "rows")) is None:
            return None
        sums, notes = stage
        inline_injective(sch, keep=("pad", "taken", "sums"))
        (taken,) = called(sch, "taken")
        at, _ = self._image(sch, blocks_of(sch)[-1], notes["points"], notes["chunks"], 0, bool(notes["across"]))
        self._products(sch, sums, taken, at, notes["reduction"], notes["unroll"])
        for block in called(sch, "pad"):
            self._copy(sch, block, None)
        return sch

    def _products(self, sch: s_tir.Schedule, sums: Any, taken: Any, at: Any, terms: int, unroll: int) -> None:
        """The sums of one tile, over `terms` loops; within an instruction are two of the tile and one of codes."""
        sch.compute_at(sums, at, preserve_unit_loops=True)
        *_, t, m, lanes, row, column = sch.get_loops(sums)[: -terms - 1]
        *reduce, inner = sch.get_loops(sums)[-terms - 1 :]
        sch.reorder(*reduce, t, m, lanes, row, column, inner)
        sch.compute_at(taken, reduce[-1], preserve_unit_loops=True)
        depth = len(sch.get_loops(sums)) - 6
        *copies, eight = sch.get_loops(taken)[depth:]
        for loop in copies:
            sch.unroll(loop)
        sch.vectorize(eight)
        body = (extent(sch, t) or 1) * (extent(sch, m) or 1) * (extent(sch, lanes) or 1)
        for loop in reversed(reduce):
            body *= extent(sch, loop) or unroll
            if body > unroll:
                break
            sch.unroll(loop)
        for loop in (t, m, lanes):
            sch.unroll(loop)
        init = sch.decompose_reduction(sums, reduce[0])
        sch.tensorize(row, register(self.machine))
        *_, t, m, lanes, row, column = sch.get_loops(init)
        for loop in (t, m, lanes):
            sch.unroll(loop)
        sch.vectorize(sch.fuse(row, column))
