"""Kernels for GPUs: each thread holds one tile of results in registers.

Threads that stand side by side take tiles that do, so that what they load together lies together and the weights that
they share come from the cache once. Nothing is staged in local memory: the GPUs of phones gain little by it, and those
that keep it in ordinary memory lose. Loads and stores are of four numbers wherever the layout has four side by side.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import s_tir

from ..schedule.blocks import (
    MachineRule,
    annotated,
    blocks_of,
    called,
    extent,
    inline_injective,
    is_reduction,
    is_result,
)
from .device import Gpu

_LANES = 4
_REDUCE = 2
_UNROLL = 64
"""Vector multiply-adds of the innermost loops that may be written out one after the other."""
_ROW = 64
"""Elements of a row that one thread takes alone."""
_DOWN = 8
"""Rows of a work group, at most: blocks of channels, which share what the threads of a column load."""


class GpuRule(MachineRule):
    """A rule for a GPU."""

    machine: Gpu

    def vectors(self, sch: s_tir.Schedule, loop: Any, whole: bool = True) -> None:
        """Four neighbours at once; one after the other where some may be missing."""
        if extent(sch, loop) == _LANES and whole:
            sch.vectorize(loop)
        elif (extent(sch, loop) or _LANES) <= _LANES:
            sch.unroll(loop)

    def threads(self, sch: s_tir.Schedule, fused: Any) -> Any:
        """Bind a loop to work groups and their threads; returns the loop over threads."""
        outer, inner = sch.split(fused, [None, min(self.machine.threads, extent(sch, fused) or self.machine.threads)])
        sch.bind(outer, "blockIdx.x")
        sch.bind(inner, "threadIdx.x")
        return inner

    def plane(self, sch: s_tir.Schedule, rows: Any, tiles: Any) -> Any:
        """Bind two loops to a plane of work groups; returns the innermost loop over threads."""
        down = _dividing(extent(sch, rows) or 1, _DOWN)
        across = _dividing(extent(sch, tiles) or 1, self.machine.threads // down)
        by, ty = sch.split(rows, [None, down])
        bx, tx = sch.split(tiles, [None, across])
        sch.reorder(by, bx, ty, tx)
        for loop, axis in ((by, "blockIdx.y"), (bx, "blockIdx.x"), (ty, "threadIdx.y"), (tx, "threadIdx.x")):
            sch.bind(loop, axis)
        return tx


class Contraction(GpuRule):
    """Convolutions, depthwise convolutions and products: the stage `sums`, cut into tiles by its expression."""

    def schedule(self, sch: s_tir.Schedule) -> s_tir.Schedule | None:
        if (stage := annotated(sch, "points")) is None:
            return None
        sums, notes = stage
        points, chunks, terms = notes["points"], notes["chunks"], notes["reduction"]
        inline_injective(sch, keep=("pad", "sums"))
        taken = sch.reindex(sums, ("read", 0))
        for block in called(sch, "pad"):
            sch.compute_inline(block)
        last = blocks_of(sch)[-1]
        at = self._image(sch, last, points, chunks) if terms in (2, 4) else self._rows(sch, last, points, chunks)
        self._sums(sch, sums, taken, at, terms)
        return sch

    def _image(self, sch: s_tir.Schedule, last: Any, points: int, chunks: int) -> Any:
        n, c, p, lane = sch.get_loops(last)
        outer, m = sch.split(c, [None, chunks])
        tile, t = sch.split(p, [None, points])
        sch.reorder(n, outer, tile, t, m, lane)
        at = self.plane(sch, sch.fuse(n, outer), tile)
        sch.unroll(t)
        sch.unroll(m)
        self.vectors(sch, lane)
        return at

    def _rows(self, sch: s_tir.Schedule, last: Any, points: int, chunks: int) -> Any:
        *lead, r, c = sch.get_loops(last)
        columns = extent(sch, c) or 1
        tile, t = sch.split(r, [None, points])
        column, lane = sch.split(c, [None, _LANES])
        panel, m = sch.split(column, [None, chunks])
        sch.reorder(*lead, tile, panel, t, m, lane)
        at = self.plane(sch, sch.fuse(*lead, tile), panel)
        sch.unroll(t)
        sch.unroll(m)
        self.vectors(sch, lane, whole=columns % _LANES == 0)
        return at

    def _sums(self, sch: s_tir.Schedule, sums: Any, taken: Any, at: Any, terms: int) -> None:
        sch.compute_at(sums, at, preserve_unit_loops=True)
        loops = sch.get_loops(sums)
        reduce, tile = loops[-terms:], loops[-terms - 3 : -terms]
        if terms == 1 and (extent(sch, reduce[0]) or 1) % _LANES == 0:
            reduce = sch.split(reduce[0], [None, _LANES])
        # What a thread reads for one step of the sum: for products and convolutions up to four terms at a time.
        inner = [] if terms == 2 or len(reduce) == 1 else [reduce[-1]]
        outer = reduce[: len(reduce) - len(inner)]
        sch.reorder(*outer, *inner, *tile)
        sch.set_scope(sums, 0, "local")
        sch.compute_at(taken, outer[-1], preserve_unit_loops=True)
        sch.set_scope(taken, 0, "local")
        *reads, four = sch.get_loops(taken)[len(sch.get_loops(sums)) - len(inner) - 3 :]
        for loop in reads:
            sch.unroll(loop)
        self.vectors(sch, four)
        body = (extent(sch, tile[0]) or 1) * (extent(sch, tile[1]) or 1)
        for loop in [*inner, *reversed(outer)]:
            body *= extent(sch, loop) or _UNROLL
            if body > _UNROLL:
                break
            sch.unroll(loop)
        for loop in tile[:2]:
            sch.unroll(loop)
        self.vectors(sch, tile[2])
        init = sch.decompose_reduction(sums, outer[0])
        *_, t, m, lane = sch.get_loops(init)
        sch.unroll(t)
        sch.unroll(m)
        self.vectors(sch, lane)


class Flat(GpuRule):
    """No sums: each element, or four neighbours, for itself."""

    def schedule(self, sch: s_tir.Schedule) -> s_tir.Schedule | None:
        if any(is_reduction(sch, block) for block in blocks_of(sch)):
            return None
        inline_injective(sch)
        for block in blocks_of(sch):
            self.spread(sch, block)
        return sch

    def spread(self, sch: s_tir.Schedule, block: Any) -> Any:
        """Share the elements of a block out to threads, by fours where the last axis holds whole ones."""
        loops = sch.get_loops(block)
        if not loops:
            sch.add_unit_loop(block)
            loops = sch.get_loops(block)
        if (extent(sch, loops[-1]) or 1) % _LANES:
            return self.threads(sch, sch.fuse(*loops))
        last, lane = sch.split(loops[-1], [None, _LANES])
        at = self.threads(sch, sch.fuse(*loops[:-1], last))
        self.vectors(sch, lane)
        return at


class Pooling(Flat):
    """One reduction with as many results as the kernel: pooling, means. Each thread takes one, or four neighbours."""

    def schedule(self, sch: s_tir.Schedule) -> s_tir.Schedule | None:
        inline_injective(sch)
        blocks = blocks_of(sch)
        sums = next((block for block in blocks if is_reduction(sch, block)), None)
        if sums is None or len(blocks) > 2 or is_result(sch, sums) != (len(blocks) == 1):
            return None
        last = blocks[-1] if len(blocks) == 2 else sch.cache_write(sums, 0, "local")
        if _results(sch, sums) != _results(sch, last):
            return None
        at = self.spread(sch, last)
        sch.compute_at(sums, at, preserve_unit_loops=True)
        _hold(sch, sums)
        kinds = [var.iter_type for var in sch.get(sums).iter_vars]
        loops = sch.get_loops(sums)[-len(kinds) :]
        reduce = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _REDUCE]
        lane = next((loop for loop in reversed(loops) if loop not in reduce), None)
        sch.reorder(*reduce, *([lane] if lane is not None else []))
        even = lane is not None and extent(sch, lane) == _LANES
        if even:
            # Before the first term is parted from the others: afterwards the block alone is no whole reduction.
            self.vectors(sch, lane)
        init = sch.decompose_reduction(sums, reduce[0])
        if even:
            self.vectors(sch, sch.get_loops(init)[-1])
        return sch


class ShortRows(GpuRule):
    """Stages with reductions over short rows (softmax of a few classes): each thread takes a row through all of them.

    Long rows are shared out between threads by TVM's own rule.
    """

    def schedule(self, sch: s_tir.Schedule) -> s_tir.Schedule | None:
        inline_injective(sch)
        blocks = blocks_of(sch)
        if any(is_result(sch, block) for block in blocks[:-1]):
            return None
        shared = min(len(_kept(sch, block)) for block in blocks)
        loops = sch.get_loops(blocks[-1])
        if not 0 < shared < len(loops) or math.prod(extent(sch, loop) or _ROW for loop in loops[shared:]) > _ROW:
            return None
        at = self.threads(sch, sch.fuse(*loops[:shared]))
        for block in reversed(blocks[:-1]):
            sch.compute_at(block, at)
            _hold(sch, block)
        return sch


def _hold(sch: s_tir.Schedule, block: Any) -> None:
    """What a block writes, which may be several buffers, stays with its thread."""
    for index in range(len(sch.get(block).writes)):
        sch.set_scope(block, index, "local")


def _kept(sch: s_tir.Schedule, block: Any) -> list[int]:
    """The leading dimensions of what a block writes that are neither reduced over nor behind such."""
    sizes = [int(var.dom.extent) for var in sch.get(block).iter_vars if var.iter_type != _REDUCE]
    while sizes and is_reduction(sch, block) and sizes[-1] == 1:
        sizes.pop()
    return sizes if is_reduction(sch, block) else sizes[:-1]


def _results(sch: s_tir.Schedule, block: Any) -> int:
    """How many numbers a block writes."""
    return math.prod(int(var.dom.extent) for var in sch.get(block).iter_vars if var.iter_type != _REDUCE)


def _dividing(size: int, most: int) -> int:
    """So many parts of `size` at once: a divisor of it where one is near the most, so that no thread is idle."""
    most = min(most, size)
    best = max(n for n in range(1, most + 1) if size % n == 0)
    return best if 2 * best > most else most
