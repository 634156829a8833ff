"""The rule for convolutions by minimal filtering (see `compute.winograd`).

A strip of rows of tiles is one part of the work: its inputs are transformed once; then, for each panel of output
channels, its tiles are summed, transformed back and put where they belong, with the elementwise work behind them.
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir

from ..compute.winograd import F2
from .blocks import annotated, blocks_of, extent, inline_injective, written_out
from .tiled import Tiled

_STAGES = ("pad", "half", "taken", "sums", "upper", "image")


class Winograd(Tiled):
    """The rule for kernels that have a stage of sums with the annotation `optc.winograd`."""

    def schedule(self, sch: s_tir.Schedule) -> s_tir.Schedule | None:
        if (marked := annotated(sch, "winograd")) is None:
            return None
        sums, notes = marked
        inline_injective(sch, keep=_STAGES)
        stage = {str(sch.get(block).name_hint): block for block in blocks_of(sch)}
        points, chunks = (extent(sch, loop) or 1 for loop in sch.get_loops(sums)[6:8])
        share, panel = self._strips(sch, blocks_of(sch)[-1], stage["image"], chunks, notes["width"])
        self._multiply(sch, sums, self._back(sch, stage["image"], stage["upper"], panel, points), notes["winograd"])
        self._there(sch, stage["taken"], stage["half"], share)
        if "pad" in stage:
            self._copy(sch, stage["pad"], None)
        return sch

    def _strips(self, sch: s_tir.Schedule, last: Any, image: Any, chunks: int, width: int) -> tuple[Any, Any]:
        """Cut the output [N, C / b, pixels, b]; returns the loop that is shared out, over strips, and within it the one
        over panels of channels."""
        rows, out = (extent(sch, loop) or 1 for loop in sch.get_loops(image)[3:5])
        n, c, p, lane = sch.get_loops(last)
        panel, m = sch.split(c, [None, chunks])
        strip, inside = sch.split(p, [None, rows * out * width])
        sch.reorder(n, strip, panel, m, inside, lane)
        share = sch.fuse(n, strip)
        sch.parallel(share)
        sch.split(inside, [None, width])
        sch.vectorize(lane)
        return share, panel

    def _back(self, sch: s_tir.Schedule, image: Any, upper: Any, panel: Any, points: int) -> Any:
        """The sums of a tile as its outputs; returns the loop within which all sums that it runs over are read."""
        sch.compute_at(image, panel, preserve_unit_loops=True)
        *_, m, _, r, i, t, j, lane = sch.get_loops(image)
        if (extent(sch, t) or 1) % points == 0:
            # The sums of one register tile stay in the nearest cache.
            panel, t = sch.split(t, [None, points])
            sch.reorder(r, panel, m, t, i, j, lane)
        else:
            sch.reorder(t, i, j, lane)
        sch.compute_at(upper, t, preserve_unit_loops=True)
        self._write_out(sch, (j, sch.get_loops(upper)[-3]), (i, sch.get_loops(upper)[-2]))
        sch.vectorize(lane)
        sch.vectorize(sch.get_loops(upper)[-1])
        return panel

    def _multiply(self, sch: s_tir.Schedule, sums: Any, panel: Any, unroll: int) -> None:
        """A product of matrices for each place in a tile, tile by tile of registers."""
        sch.compute_at(sums, panel, preserve_unit_loops=True)
        *_, t, m, lane, rc, ri = sch.get_loops(sums)
        sch.reorder(rc, ri, t, m, lane)
        body = (extent(sch, t) or 1) * (extent(sch, m) or 1) * self.machine.vectors
        if body * (extent(sch, ri) or unroll) <= unroll:
            sch.unroll(ri)
        written_out(sch, t, m, lane)
        written_out(sch, *sch.get_loops(sch.decompose_reduction(sums, rc))[-3:])

    def _there(self, sch: s_tir.Schedule, taken: Any, half: Any, share: Any) -> None:
        """The inputs of a tile, transformed."""
        sch.compute_at(taken, share, preserve_unit_loops=True)
        *_, i, j, c, r, t, lane = sch.get_loops(taken)
        sch.reorder(c, r, t, i, j, lane)
        sch.compute_at(half, t, preserve_unit_loops=True)
        self._write_out(sch, (j, sch.get_loops(half)[-3]), (i, sch.get_loops(half)[-2]))
        sch.vectorize(lane)
        sch.vectorize(sch.get_loops(half)[-1])

    def _write_out(self, sch: s_tir.Schedule, rows: tuple[Any, ...], others: tuple[Any, ...]) -> None:
        """Write out the loops over the rows of a transform, which are told apart by that, and the others where they are
        short: of long ones TVM takes twice as long to compile what LLVM makes as good by itself."""
        for loop in (*rows, *(one for one in others if (extent(sch, one) or 1) <= F2.size)):
            sch.unroll(loop)
