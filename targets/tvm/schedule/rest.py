"""Kernels without running sums in registers: elementwise work, copies, pooling, softmax, normalisation, means.

The loops that all stages share are spread over the cores; the last one goes into vectors where its length is known and
even. Other loops are left to LLVM, which may reorder sums (see `Machine.target`).
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx

from .blocks import MachineRule, blocks_of, extent, inline_injective, is_aligned, is_reduction, is_result

_FEW = 8
"""Elements of a last axis that are written one after the other."""
_WIDE = 32
"""Elements of a row that are taken as lanes of vectors."""
_REDUCE = 2
"""TVM's number for a loop that is summed over."""
_ROW = 512
"""Elements of a row at most, so that there are rows to share out."""
_SMALL = 4096
"""Elements below which sharing out costs more than it gains."""


class Elementwise(MachineRule):
    """No sums: each element for itself."""

    def schedule(self, sch: s_tir.Schedule) -> s_tir.Schedule | None:
        if any(is_reduction(sch, block) for block in blocks_of(sch)):
            return None
        inline_injective(sch)
        for block in blocks_of(sch):
            loops = sch.get_loops(block)
            sizes = [extent(sch, loop) for loop in loops]
            if not loops:
                continue
            if self._flat(sch, block):
                continue
            self._vectorize(sch, loops[-1])
            outer = self._row(sch, sch.get_loops(block)[: len(loops) - 1], sizes)
            if outer and (None in sizes or _product(sizes) >= _SMALL):
                sch.parallel(sch.fuse(*outer))
        return sch

    def _flat(self, sch: s_tir.Schedule, block: Any) -> bool:
        """Where a last axis does not fill vectors and every operand lies as the result does, the axes are taken as one;
        whether that was so."""
        loops = sch.get_loops(block)
        sizes = [extent(sch, loop) for loop in loops]
        first = next((i for i in range(len(sizes), 0, -1) if sizes[i - 1] is None), 0)
        count, lanes = _product(sizes[first:]), self.machine.block
        if first >= len(sizes) - 1 or (sizes[-1] or 1) % lanes == 0 or count % lanes or not is_aligned(sch, block):
            return False
        outer, inner = sch.split(sch.fuse(*loops[first:]), [None, lanes])
        sch.vectorize(inner)
        if first or count >= _SMALL:
            sch.parallel(sch.fuse(*loops[:first], outer))
        return True

    def _row(self, sch: s_tir.Schedule, outer: list[Any], sizes: list[int | None]) -> list[Any]:
        """The loops to share out: of all but the last. Where that one is short, a row of the one before stays a loop:
        from where such a row starts LLVM takes several elements at once, which it cannot where each has to be found."""
        size, last = (sizes[-2], sizes[-1]) if len(sizes) > 1 else (None, None)
        if size is None or last is None or last > _FEW:
            return outer
        row = max(n for n in range(1, min(size, _ROW) + 1) if size % n == 0)
        if row < self.machine.block:
            return outer
        start, _ = sch.split(outer[-1], [None, row])
        return [*outer[:-1], start]

    def _vectorize(self, sch: s_tir.Schedule, loop: Any) -> None:
        size, lanes = extent(sch, loop), self.machine.block
        if size is not None and size % lanes == 0:
            _, inner = sch.split(loop, [None, lanes])
            sch.vectorize(inner)
        elif size is not None and size <= _FEW:
            # What is joined along such an axis is told apart when it is compiled.
            sch.unroll(loop)


class RowsRule(MachineRule):
    """Stages with reductions that share their outer loops: each row is taken through all of them at once."""

    def schedule(self, sch: s_tir.Schedule) -> s_tir.Schedule | None:
        inline_injective(sch)
        blocks = blocks_of(sch)
        if any(is_result(sch, block) for block in blocks[:-1]):
            return None
        shared = min(self._spatial(sch, block) for block in blocks)
        last = sch.get_loops(blocks[-1])
        if len(blocks) == 1:
            shared = max(1, len([v for v in sch.get(blocks[0]).iter_vars if v.iter_type == 0]) - 1)
        if not last or shared == 0:
            return sch
        at = sch.fuse(*last[:shared])
        sch.parallel(at)
        for block in reversed(blocks[:-1]):
            sch.compute_at(block, at)
        for block in blocks:
            self._lanes(sch, block)
        return sch

    def _spatial(self, sch: s_tir.Schedule, block: Any) -> int:
        """The leading dimensions of what a block writes that are neither reduced over nor of size one."""
        sizes = [var.dom.extent for var in sch.get(block).iter_vars if var.iter_type == 0]
        while sizes and is_reduction(sch, block) and isinstance(sizes[-1], tirx.IntImm) and int(sizes[-1]) == 1:
            sizes.pop()
        return len(sizes) if is_reduction(sch, block) else max(1, len(sizes) - 1)

    def _lanes(self, sch: s_tir.Schedule, block: Any) -> None:
        """Where each row is the lanes of one block of channels, they stand inside the sum, in vectors."""
        terms = len([var for var in sch.get(block).iter_vars if var.iter_type == _REDUCE])
        _, *loops = sch.get_loops(block)
        if len(loops) != 1 + terms:
            return
        lane, *reduce = loops
        size = extent(sch, lane)
        if size is None or size % self.machine.lanes or size > _WIDE:
            return
        if reduce:
            sch.reorder(*reduce, lane)
        sch.vectorize(lane)
        if reduce:
            init = sch.decompose_reduction(block, reduce[0])
            sch.vectorize(sch.get_loops(init)[-1])


def _product(sizes: list[int | None]) -> int:
    product = 1
    for size in sizes:
        product *= size or 1
    return product
