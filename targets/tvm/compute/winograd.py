"""Convolutions with kernels of 3 x 3 by minimal filtering, F(2 x 2, 3 x 3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.1: a tile of 2 x 2 outputs is

    Y = A^T [ sum over input channels of (G g G^T) * (B^T d B) ] A

with `d` the 4 x 4 inputs under it, `g` the kernel and * element by element: 16 products a channel, where the sums of
the definition have 36. Over all channels and tiles they are 16 products of matrices, which take most of the time. The
weights G g G^T are computed when the model is compiled. See docs/algorithms.md, section 10.

The image is cut into strips of rows of tiles, whose transformed inputs stay in a near cache while all output channels
are computed from them. Layouts are those of `conv`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..cpu.tiling import Tile
from .conv import Window

if TYPE_CHECKING:
    from tvm import te

OUT = 2
"""Rows and columns of outputs that one tile gives."""
SIZE = 4
"""Rows and columns of inputs that one tile takes."""
_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
"""B^T."""
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
"""G."""
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))
"""A^T."""
_FEWEST = 6
"""Tiles of a strip: what a register tile needs to keep the multiply-adds busy."""


def fits(window: Window) -> bool:
    """Whether a convolution looks as these do."""
    return window.size == (3, 3) and window.strides == (1, 1) and window.dilations == (1, 1)


def tiles(window: Window) -> tuple[int, int]:
    """Rows and columns of tiles over the output."""
    height, width = window.output
    return -(-height // OUT), -(-width // OUT)


def strip(window: Window) -> int:
    """Rows of tiles in a strip: as few as give a register tile enough, of those that waste the fewest."""
    down, across = tiles(window)
    enough = [rows for rows in range(1, down + 1) if rows * across >= _FEWEST] or [down]
    return min(enough, key=lambda rows: (-(-down // rows) * rows, rows))


def pack(weights: npt.NDArray[np.generic], tile: Tile, block: int) -> npt.NDArray[np.generic]:
    """[Co, Ci, 3, 3] as G g G^T, [Co / (m b), 4, 4, Ci / b, b, m, b]; missing output channels become zero."""
    co, ci = weights.shape[:2]
    wide = tile.chunks * block
    kernel = np.asarray(_KERNEL)
    taken = np.einsum("ik,ockl,jl->ijoc", kernel, weights.astype(np.float64), kernel)
    padded = np.pad(taken, ((0, 0), (0, 0), (0, -co % wide), (0, 0)))
    cut = padded.reshape(SIZE, SIZE, -1, tile.chunks, block, ci // block, block)
    return np.ascontiguousarray(cut.transpose(2, 0, 1, 5, 6, 3, 4).astype(weights.dtype))


def winograd(x: te.Tensor, w: te.Tensor, channels: int, window: Window, tile: Tile) -> te.Tensor:
    """x [N, Ci / b, H * W, b] with packed weights to [N, Co / b, OH * OW, b], float32.

    `channels` are those of the output; its last block may hold more, which are zero.
    """
    from tvm import te

    outer, _, _, blocks, inner, chunks, block = (int(size) for size in w.shape)
    (down, across), rows, width = tiles(window), strip(window), window.output[1]
    strips, count = -(-down // rows), rows * across
    source = _padded(x, window, (strips * rows, across))
    # The first factor of each transform is a stage of its own: its results are read several times.
    half = te.compute(
        (x.shape[0], strips, blocks, rows, across, SIZE, SIZE, inner),
        lambda n, s, c, r, t, i, q, lane: _combined(
            _INPUT, i, lambda p: source(n, c, (s * rows + r) * OUT + p, t * OUT + q, lane)
        ),
        name="half",
    )
    taken = te.compute(
        (x.shape[0], strips, SIZE, SIZE, blocks, rows, across, inner),
        lambda n, s, i, j, c, r, t, lane: _combined(_INPUT, j, lambda q: half[n, s, c, r, t, i, q, lane]),
        name="taken",
    )
    summed = _products(taken, w, tile, count, across, width)
    upper = te.compute(
        (x.shape[0], outer * chunks, strips, rows, across, OUT, SIZE, block),
        lambda n, c, s, r, t, i, q, lane: _combined(_OUTPUT, i, lambda p: summed(n, c, s, p, q, r * across + t, lane)),
        name="upper",
    )
    image = te.compute(
        (x.shape[0], outer * chunks, strips, rows, OUT, across, OUT, block),
        lambda n, c, s, r, i, t, j, lane: _combined(_OUTPUT, j, lambda q: upper[n, c, s, r, t, i, q, lane]),
        name="image",
    )

    def placed(n: Any, c: Any, p: Any, lane: Any) -> Any:
        h, t = p // width, p % width
        row = h // OUT
        return image[n, c, row // rows, row % rows, h % OUT, t // OUT, t % OUT, lane]

    return te.compute((x.shape[0], -(-channels // block), window.output[0] * width, block), placed, name="winograd")


def _padded(x: te.Tensor, window: Window, grid: tuple[int, int]) -> Callable[..., Any]:
    """A function (n, channel block, row, column, channel) -> the input there, as far as a grid of so many tiles looks;
    beyond the border it is zero."""
    from tvm import te, tirx

    (height, width), (top, left) = window.image, window.pads[:2]
    tall, wide = grid[0] * OUT + SIZE - OUT, grid[1] * OUT + SIZE - OUT
    if (tall, wide, top, left) == (height, width, 0, 0):
        return lambda n, c, h, t, lane: x[n, c, h * width + t, lane]
    zero = tirx.const(0, x.dtype)

    def pad(n: Any, c: Any, h: Any, t: Any, lane: Any) -> Any:
        row = tirx.min(tirx.max(h - top, 0), height - 1)
        # A number that is read in vain, so that rows are no branches: see `conv`.
        value = tirx.Select(row == h - top, x[n, c, row * width + t - left, lane], zero)
        return tirx.if_then_else(tirx.all(t >= left, t < width + left), value, zero)

    edges = [left, wide - width - left]
    padded = te.compute((x.shape[0], x.shape[1], tall, wide, x.shape[3]), pad, name="pad", attrs={"optc.edges": edges})
    return lambda n, c, h, t, lane: padded[n, c, h, t, lane]


def _products(taken: te.Tensor, w: te.Tensor, tile: Tile, count: int, across: int, width: int) -> Callable[..., Any]:
    """The sums over the input channels: a function (n, channel block, strip, row and column in a tile, tile of the
    strip, channel) -> the sum."""
    from tvm import te, tirx

    outer, _, _, blocks, inner, chunks, block = (int(size) for size in w.shape)
    rc, ri = te.reduce_axis((0, blocks), "rc"), te.reduce_axis((0, inner), "ri")

    def term(n: Any, o: Any, s: Any, i: Any, j: Any, q: Any, t: Any, m: Any, lane: Any) -> Any:
        at = q * tile.points + t
        if count % tile.points:
            at = tirx.min(at, count - 1)
        return taken[n, s, i, j, rc, at // across, at % across, ri] * w[o, i, j, rc, ri, m, lane]

    groups = -(-count // tile.points)
    sums = te.compute(
        (taken.shape[0], outer, taken.shape[1], SIZE, SIZE, groups, tile.points, chunks, block),
        lambda *i: te.sum(term(*i), axis=[rc, ri]),
        name="sums",
        attrs={"optc.winograd": tile.unroll, "optc.width": width},
    )

    def read(n: Any, c: Any, s: Any, i: Any, j: Any, at: Any, lane: Any) -> Any:
        return sums[n, c // chunks, s, i, j, at // tile.points, at % tile.points, c % chunks, lane]

    return read


def _combined(matrix: Sequence[Sequence[float]], row: Any, value: Callable[[int], Any]) -> Any:
    """One row of a matrix of 0, 1 and -1 times the values; `row` is a loop that is written out."""
    from tvm import tirx

    sums = []
    for factors in matrix:
        terms = [(factor, value(k)) for k, factor in enumerate(factors) if factor]
        terms.sort(key=lambda term: -term[0])
        total = terms[0][1]
        for factor, term in terms[1:]:
            total = total + term if factor > 0 else total - term
        sums.append(total)
    chosen = sums[-1]
    for index in reversed(range(len(sums) - 1)):
        chosen = tirx.Select(row == index, sums[index], chosen)
    return chosen
