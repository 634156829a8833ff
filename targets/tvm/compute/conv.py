"""Convolutions over channels in blocks.

An image is [N, C / b, H * W, b]: blocks of `b` channels side by side (NCHWc). With b = 1 that is plain NCHW, so the
first layer needs no conversion. Weights are packed when the model is compiled, [Co / (m b), Ci / i, KH, KW, i, m, b],
so that the kernel reads them in order; `i` is the block of the input, or a part of it that divides the channels. The
sums of a tile are one stage, the output another, and the schedule computes the first inside the second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from ..cpu.tiling import Tile
from .sums import sums
from .window import Window


def pack(weights: npt.NDArray[np.generic], tile: Tile, inner: int, block: int) -> npt.NDArray[np.generic]:
    """[Co, Ci, KH, KW] as [Co / (m b), Ci / inner, KH, KW, inner, m, b]; missing output channels become zero."""
    co, ci, kh, kw = weights.shape
    wide = tile.chunks * block
    full = -(-co // wide) * wide
    padded = np.pad(weights, ((0, full - co), (0, 0), (0, 0), (0, 0)))
    cut = padded.reshape(full // wide, tile.chunks, block, ci // inner, inner, kh, kw)
    return np.ascontiguousarray(cut.transpose(0, 3, 5, 6, 4, 1, 2))


def pack_depthwise(weights: npt.NDArray[np.generic], block: int) -> npt.NDArray[np.generic]:
    """[C, 1, KH, KW] as [C / b, KH, KW, b]; missing channels become zero."""
    c, _, kh, kw = weights.shape
    blocks = -(-c // block)
    padded = np.pad(weights, ((0, blocks * block - c), (0, 0), (0, 0), (0, 0)))
    return np.ascontiguousarray(padded.reshape(blocks, block, kh, kw).transpose(0, 2, 3, 1))


def packed(w: te.Tensor, tile: Tile, inner: int, block: int) -> te.Tensor:
    """`pack` of weights that are computed when the model runs."""
    co, ci, kh, kw = (int(size) for size in w.shape)
    wide = tile.chunks * block

    def at(o: Any, c: Any, h: Any, k: Any, i: Any, m: Any, lane: Any) -> Any:
        channel = o * wide + m * block + lane
        one = w[channel, c * inner + i, h, k]
        return one if co % wide == 0 else tirx.if_then_else(channel < co, one, tirx.const(0, w.dtype))

    return te.compute((-(-co // wide), ci // inner, kh, kw, inner, tile.chunks, block), at, name="packed_weights")


def packed_depthwise(w: te.Tensor, block: int) -> te.Tensor:
    """`pack_depthwise` of weights that are computed when the model runs."""
    c, _, kh, kw = (int(size) for size in w.shape)

    def at(b: Any, h: Any, k: Any, lane: Any) -> Any:
        channel = b * block + lane
        one = w[channel, 0, h, k]
        return one if c % block == 0 else tirx.if_then_else(channel < c, one, tirx.const(0, w.dtype))

    return te.compute((-(-c // block), kh, kw, block), at, name="packed_weights")


def blocked(b: te.Tensor, block: int) -> te.Tensor:
    """Numbers a channel, computed when the model runs, as they broadcast against an image: [1, C / b, 1, b]."""
    count = int(b.shape[0])

    def at(_: Any, c: Any, __: Any, lane: Any) -> Any:
        one = b[c * block + lane]
        return one if count % block == 0 else tirx.if_then_else(c * block + lane < count, one, tirx.const(0, b.dtype))

    return te.compute((1, -(-count // block), 1, block), at, name="blocked")


def reader(
    x: te.Tensor, window: Window, tile: Tile, zero: Any, number: Callable[[Any], Any] | None = None
) -> Callable[..., Any]:
    """A function (n, channel block, tile, point, kh, kw, channel) -> the input value a term of the sum takes.

    `zero` stands beyond the border. With `number`, what it makes of each value is copied first.
    """
    height, width = window.image
    top, left, bottom, right = window.pads
    out_height, out_width = window.output
    (sh, sw), (dh, dw) = window.strides, window.dilations
    points = out_height * out_width
    source = x
    copied = any(window.pads) or number is not None
    if copied:

        def pad(n: Any, c: Any, h: Any, w: Any, lane: Any) -> Any:
            row = h - top
            inside = tirx.min(tirx.max(row, 0), height - 1) if top or bottom else row
            value = x[n, c, inside * width + w - left, lane]
            value = value if number is None else number(value)
            if top or bottom:
                # A number that is read in vain, so that rows are no branches: LLVM writes all of these out one by one.
                value = tirx.Select(row == inside, value, zero)
            return tirx.if_then_else(tirx.all(w >= left, w < width + left), value, zero) if left or right else value

        source = te.compute(
            (x.shape[0], x.shape[1], height + top + bottom, width + left + right, x.shape[3]),
            pad,
            name="pad",
            attrs={"optc.edges": [left, right]} if left or right else None,
        )

    def read(n: Any, c: Any, tile_index: Any, point: Any, kh: Any, kw: Any, lane: Any) -> Any:
        at = tile_index * tile.points + point
        if points % tile.points:
            at = tirx.min(at, points - 1)
        if window.pointwise and not copied:
            return x[n, c, at, lane]
        if out_width % tile.points == 0:
            across = out_width // tile.points
            h, w = tile_index // across, tile_index % across * tile.points + point
        else:
            h, w = at // out_width, at % out_width
        h, w = h * sh + kh * dh, w * sw + kw * dw
        return source[n, c, h, w, lane] if copied else source[n, c, h * width + w, lane]

    return read


def from_tiles(sums: te.Tensor, channels: int, points: int, name: str) -> te.Tensor:
    """Sums in tiles, [N, Co / (m b), tiles, points of one, m, b], as an image [N, Co / b, points, b]."""
    n, _, _, tile, chunks, block = (sums.shape[0], *(int(size) for size in sums.shape[1:]))
    return te.compute(
        (n, -(-channels // block), points, block),
        lambda i, c, p, lane: sums[i, c // chunks, p // tile, p % tile, c % chunks, lane],
        name=name,
    )


def conv(x: te.Tensor, w: te.Tensor, channels: int, window: Window, tile: Tile, groups: int = 1) -> te.Tensor:
    """x [N, Ci / bi, H * W, bi] with packed weights to [N, Co / b, OH * OW, b], float32 or float16.

    `channels` are those of the output; its last block may hold more, which are zero. That of the input may hold more,
    too, which are not read.
    """
    points = window.output[0] * window.output[1]
    outer, blocks, kernel_h, kernel_w, inner, chunks, block = (int(d) for d in w.shape)
    read = reader(x, window, tile, tirx.const(0, x.dtype))
    parts = int(x.shape[3]) // inner

    def term(n: Any, o: Any, p: Any, t: Any, m: Any, lane: Any, rc: Any, rh: Any, rw: Any, ri: Any) -> Any:
        c = rc if groups == 1 else o // (outer // groups) * blocks + rc
        return read(n, c // parts, p, t, rh, rw, c % parts * inner + ri) * w[o, rc, rh, rw, ri, m, lane]

    total = sums(
        (x.shape[0], outer, -(-points // tile.points), tile.points, chunks, block),
        term,
        ((blocks, "rc"), (kernel_h, "rh"), (kernel_w, "rw"), (inner, "ri")),
        str(w.dtype),
        tile.notes(4),
    )
    return from_tiles(total, channels, points, "conv")


def _strip(window: Window, tile: Tile, pixel: int, copied: bool) -> int:
    """Tiles of the rows whose copied input, of so many bytes a pixel, stays in the first cache; 0 where rows end inside
    tiles or there is none."""
    height, width = window.output
    if not copied or width % tile.points:
        return 0
    left, right = window.pads[1], window.pads[3]
    line = (window.image[1] + left + right) * pixel
    span = window.dilations[0] * (window.size[0] - 1) + 1
    fitting = [r for r in range(1, height + 1) if ((r - 1) * window.strides[0] + span) * line <= tile.strip]
    rows = [r for r in fitting if height % r == 0]
    return (rows[-1] if rows else 1) * (width // tile.points)


def depthwise(x: te.Tensor, w: te.Tensor, window: Window, tile: Tile, zero: int | None = None) -> te.Tensor:
    """x [N, C / b, H * W, b] with weights [C / b, KH, KW, b]: every channel with a kernel of its own.

    With `zero`, x holds codes, and stands for the numbers code - zero. Those are taken in the type of the weights, or
    with weights of int8 as int16, and their sums are int32.
    """
    points = window.output[0] * window.output[1]
    blocks, kernel_h, kernel_w, block = (int(d) for d in w.shape)

    whole = str(w.dtype) == "int8"
    dtype = "int16" if whole else str(w.dtype)

    def number(code: Any) -> Any:
        return (code.astype("int32") - tirx.const(zero, "int32")).astype(dtype)

    def term(*i: Any) -> Any:
        n, c, p, t, _, lane = i
        x_at, w_at = read(n, c, p, t, rh, rw, lane), w[c, rh, rw, lane]
        return x_at.astype("int32") * w_at.astype("int32") if whole else x_at * w_at

    read = reader(x, window, tile, tirx.const(0, dtype), None if zero is None else number)
    rh, rw = te.reduce_axis((0, kernel_h), "rh"), te.reduce_axis((0, kernel_w), "rw")
    pixel = block * (2 if dtype == "float16" else 4)
    total = te.compute(
        (x.shape[0], blocks, -(-points // tile.points), tile.points, 1, block),
        lambda *i: te.sum(term(*i), axis=[rh, rw]),
        name="sums",
        attrs={**tile.notes(2), "optc.strip": _strip(window, tile, pixel, any(window.pads) or zero is not None)},
    )
    return from_tiles(total, blocks * block, points, "depthwise")


def side_by_side(
    x: te.Tensor,
    width: int,
    size: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int],
    first: tuple[int, int],
) -> te.Tensor:
    """The phases of a transposed convolution, which are channels of `x` [N, SH * SW * C / b, QH * width, b], as one
    image of `size`. Its pixel (0, 0) is pixel `pads` of one whose first pixel is phase 0 of place 0; places of `x`
    count from `first`."""
    (sh, sw), (top, left) = strides, pads
    blocks = int(x.shape[1]) // (sh * sw)

    def at(n: Any, c: Any, p: Any, lane: Any) -> Any:
        row, column = p // size[1] + top, p % size[1] + left
        phase = row % sh * sw + column % sw
        return x[n, phase * blocks + c, (row // sh - first[0]) * width + column // sw - first[1], lane]

    return te.compute((x.shape[0], blocks, size[0] * size[1], x.shape[3]), at, name="side_by_side")
