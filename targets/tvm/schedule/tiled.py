"""Contractions whose sums stay in registers: convolutions, depthwise convolutions, products.

Such a kernel has a stage `sums` that its expression has cut into tiles already (see `tiling`), and elementwise work
behind it. Each tile of sums is computed where its part of the output is written: every output is then touched once.
Parts of the output are shared out between the cores; weights of one part stay in the cache while the points pass.
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir

from .blocks import MachineRule, annotated, blocks_of, called, extent, inline_injective, written_out
from .dot import register

_FEW = 16
"""Registers that are no more than the sums and what each step reads."""
_STORES = 16
"""Blocks of one tile whose elements may be stored one by one, where some may lie beyond the end."""


class Tiled(MachineRule):
    """The rule for kernels that have a stage of sums with the annotation `optc.points`."""

    def schedule(self, sch: s_tir.Schedule) -> s_tir.Schedule | None:
        if (stage := annotated(sch, "points")) is None:
            return None
        sums, notes = stage
        points, chunks, terms = notes["points"], notes["chunks"], notes["reduction"]
        strip, dotted, across = notes.get("strip", 0), "terms" in notes, bool(notes["across"])
        inline_injective(sch, keep=("pad", "packed", "part", "sums"))
        last = blocks_of(sch)[-1]
        if terms in (2, 4):
            at, share = self._image(sch, last, points, chunks, strip, across)
        else:
            at = share = self._rows(sch, last, points, chunks, across)
        self._sums(sch, sums, at, terms, dotted, notes["unroll"])
        for block in (*called(sch, "pad"), *called(sch, "packed")):
            self._copy(sch, block, share if strip else None)
        return sch

    def _image(
        self, sch: s_tir.Schedule, last: Any, points: int, chunks: int, strip: int, across: bool
    ) -> tuple[Any, Any]:
        """Cut the output [N, C / b, pixels, b]; returns the loop over tiles, and the one that is shared out.

        `strip` tiles at a time share one padded copy of the rows that they read.
        """
        n, c, p, lane = sch.get_loops(last)
        outer, m = sch.split(c, [None, chunks])
        tile, t = sch.split(p, [None, points])
        sch.reorder(n, *((tile, outer) if across else (outer, tile)), t, m, lane)
        if strip:
            part, at = sch.split(tile, [None, strip])
            share = sch.fuse(n, outer, part)
        else:
            share = at = sch.fuse(n, tile, outer) if across else sch.fuse(n, outer, tile)
        sch.parallel(share)
        written_out(sch, t, m, lane)
        return at, share

    def _rows(self, sch: s_tir.Schedule, last: Any, points: int, chunks: int, across: bool) -> Any:
        """Cut the output [..., rows, columns]: panels of weights outside, tiles of rows inside, or the other way."""
        *lead, r, c = sch.get_loops(last)
        wide = chunks * self.machine.block
        even = (extent(sch, c) or 1) % wide == 0
        tile, t = sch.split(r, [None, points])
        if even:
            panel, m, lane = sch.split(c, [None, chunks, self.machine.block])
            sch.reorder(*lead, panel, tile, t, m, lane)
            sch.unroll(m)
            sch.vectorize(lane)
        else:
            panel, lane = sch.split(c, [None, wide])
            sch.reorder(*lead, panel, tile, t, lane)
            if chunks * points <= _STORES:
                sch.unroll(lane)
        if extent(sch, tile) is None:
            # Where the rows are is no expression that TVM could reason about once the two loops are one.
            at = tile
            sch.parallel(sch.fuse(*lead, panel))
        else:
            if across:
                sch.reorder(tile, panel)
            at = sch.fuse(*lead, tile, panel) if across else sch.fuse(*lead, panel, tile)
            sch.parallel(at)
        sch.unroll(t)
        return at

    def _sums(self, sch: s_tir.Schedule, sums: Any, at: Any, terms: int, dotted: bool, unroll: int) -> None:
        """The sums of one tile, over `terms` loops, as many of them written out as `unroll` multiply-adds allow; where
        `dotted`, one more loop is within an instruction."""
        sch.compute_at(sums, at, preserve_unit_loops=True)
        for part in called(sch, "part"):
            self._runs(sch, sums, part)
            sums = part
        loops = sch.get_loops(sums)
        inner = [loops.pop()] if dotted else []
        reduce, (t, m, lane) = loops[-terms:], loops[-terms - 3 : -terms]
        groups = 1
        if dotted and terms > 1 and self.machine.dot is not None and self.machine.dot.grouped:
            groups = extent(sch, reduce[-1]) or 1
        first = [reduce.pop()] if groups > 1 else []
        sch.reorder(*reduce, t, m, *first, lane, *inner)
        # The sums stay in "global" scope: TVM takes small buffers of that one from the stack, where LLVM keeps them in
        # registers, and those of any other from the heap, for every tile anew.
        vectors = self.machine.holding(str(sch.get(sums).writes[0].source.dtype)).vectors
        body = (extent(sch, t) or 1) * (extent(sch, m) or 1) * vectors * groups
        unrolled = reduce if terms > 1 else []
        if dotted and self.machine.registers <= _FEW:
            # Codes that several taps of the kernel read would all be kept, and there is no room for them.
            unrolled = unrolled[-1:]
        for loop in reversed(unrolled):
            body *= extent(sch, loop) or unroll
            if body > unroll:
                break
            sch.unroll(loop)
        for loop in (t, m):
            sch.unroll(loop)
        if not dotted:
            sch.vectorize(lane)
        init = sch.decompose_reduction(sums, reduce[0])
        if dotted:
            sch.tensorize(first[0] if first else lane, register(self.machine, groups))
        written_out(sch, *sch.get_loops(init)[-3:])

    def _runs(self, sch: s_tir.Schedule, sums: Any, part: Any) -> None:
        """Sums of runs, each of which is summed where it is added."""
        *_, t, m, lane, run = sch.get_loops(sums)
        sch.reorder(run, t, m, lane)
        sch.compute_at(part, run, preserve_unit_loops=True)
        # A loop is checked to be parallel where the sums start, so that they are taken apart only then.
        written_out(sch, t, m, lane)
        written_out(sch, *sch.get_loops(sch.decompose_reduction(sums, run))[-3:])

    def _copy(self, sch: s_tir.Schedule, block: Any, share: Any) -> None:
        """A copy that the kernel makes first, all of it or for each part, in vectors where its rows are static."""
        if share is not None:
            sch.compute_at(block, share, preserve_unit_loops=True)
        else:
            loops = sch.get_loops(block)
            sch.parallel(sch.fuse(*loops[: max(1, len(loops) - 2)]))
        *_, column, lane = sch.get_loops(block)
        edges = sch.get(block).annotations.get("optc.edges")
        inner = extent(sch, lane)
        if inner is not None and inner % self.machine.lanes == 0 and inner <= 4 * self.machine.lanes:
            sch.vectorize(lane)
        if edges is not None:
            # A row is cut where its border ends, or each of its pixels would be asked where it is.
            sch.unannotate(block, "optc.edges")
            sch.loop_partition(column, [size for size in (int(edges[0]), None, int(edges[1])) if size != 0])
