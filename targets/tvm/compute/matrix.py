"""Convolutions on codes for instructions that multiply small matrices (see `machine.Dot.rows`).

One register holds the sums of `rows` points by as many channels, and takes `terms` codes of each: the sums of a tile
are [points / r, m, b / r, r, r]. Neighbouring points need not lie side by side in
memory, so what a step reads is taken into registers first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from ..cpu.tiling import Tile
from . import codes
from .conv import reader
from .window import Window


def pack(weights: npt.NDArray[np.int8], tile: Tile, inner: int, block: int, terms: int) -> npt.NDArray[np.int8]:
    """As `codes.pack`, with the parts of a tile side by side: [..., inner / terms, m, b, terms]."""
    return np.ascontiguousarray(codes.pack(weights, tile, inner, block, terms).swapaxes(4, 5))


def conv_matrix(
    x: te.Tensor, w: te.Tensor, channels: int, window: Window, tile: Tile, groups: int, zero: int, rows: int
) -> te.Tensor:
    """As `codes.conv_codes`, for an instruction of so many rows; the points of a tile are a multiple of those."""
    points = window.output[0] * window.output[1]
    outer, blocks, kernel_h, kernel_w, inner, chunks, block, terms = (int(d) for d in w.shape)
    read = reader(x, window, tile, tirx.const(zero, x.dtype))
    rc, ri = te.reduce_axis((0, blocks), "rc"), te.reduce_axis((0, inner), "ri")
    rh, rw = te.reduce_axis((0, kernel_h), "rh"), te.reduce_axis((0, kernel_w), "rw")
    rt = te.reduce_axis((0, terms), "rt")

    # What one instruction reads, side by side.
    taken = te.compute(
        (
            x.shape[0],
            -(-points // tile.points),
            tile.points // rows,
            x.shape[1],
            kernel_h,
            kernel_w,
            inner,
            rows,
            terms,
        ),
        lambda n, p, t, c, kh, kw, i, row, k: read(n, c, p, t * rows + row, kh, kw, i * terms + k),
        name="taken",
    )

    def term(n: Any, o: Any, p: Any, t: Any, m: Any, lanes: Any, row: Any, column: Any) -> Any:
        c = rc if groups == 1 else o // (outer // groups) * blocks + rc
        code, weight = taken[n, p, t, c, rh, rw, ri, row, rt], w[o, rc, rh, rw, ri, m, lanes * rows + column, rt]
        return te.sum(code.astype("int32") * weight.astype("int32"), axis=[rc, rh, rw, ri, rt])

    sums = te.compute(
        (x.shape[0], outer, -(-points // tile.points), tile.points // rows, chunks, block // rows, rows, rows),
        term,
        name="sums",
        attrs={**tile.notes(4), "optc.rows": rows},
    )

    def place(n: Any, c: Any, p: Any, lane: Any) -> Any:
        at = p % tile.points
        return sums[n, c // chunks, p // tile.points, at // rows, c % chunks, lane // rows, at % rows, lane % rows]

    return te.compute((x.shape[0], -(-channels // block), points, block), place, name="conv")
