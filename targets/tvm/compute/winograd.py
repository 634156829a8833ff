"""Convolutions with kernels of 3 x 3 by minimal filtering, F(2 x 2, 3 x 3) and F(4 x 4, 3 x 3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.1: a tile of 2 x 2 outputs is

    Y = A^T [ sum over input channels of (G g G^T) * (B^T d B) ] A

with `d` the 4 x 4 inputs under it, `g` the kernel and * element by element: 16 products a channel, where the sums of
the definition have 36; one of 4 x 4 outputs takes 36, of 144. Over all channels and tiles they are 16 or 36 products of
matrices, which take most of the time. The weights G g G^T are computed when the model is compiled. See
docs/algorithms.md, section 10.

The image is cut into strips of rows of tiles, whose transformed inputs stay in a near cache while all output channels
are computed from them. Layouts are those of `conv`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..cpu.tiling import Tile
from .window import Window

if TYPE_CHECKING:
    from tvm import te

Matrix: TypeAlias = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Transform:
    """A matrix of few numbers that is applied to vectors: `rows` over their elements and, behind those, the sums of
    them that several rows read, which `shared` makes."""

    rows: Matrix
    shared: Matrix = ()

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """All of it, over the elements alone."""
        rows = np.asarray(self.rows, np.float64)
        width = rows.shape[1] - len(self.shared)
        shared = np.asarray(self.shared, np.float64).reshape(-1, width)
        return np.asarray(rows @ np.concatenate([np.eye(width), shared]))


@dataclass(frozen=True, slots=True)
class WinogradScheme:
    """F(out x out, 3 x 3): `inputs` is B^T, `weights` G and `outputs` A^T. A tile reads `size` rows and columns."""

    out: int
    inputs: Transform
    weights: Matrix
    outputs: Transform

    @property
    def size(self) -> int:
        return self.out + 2


F2 = WinogradScheme(
    2,
    Transform(((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))),
    ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    Transform(((1, 1, 1, 0), (0, 1, -1, -1))),
)
F4 = WinogradScheme(
    4,
    Transform(
        (
            (1, 0, -1, 0, 0, 0, 1, 1.5),
            (0, -1, 0.5, 2.5, 1, 0, 0, 0),
            (0, 1, -2.5, 0.5, 1, 0, 0, 0),
            (0, 0, 0, 0, 0, 0, 1, 2),
            (0, 0, 0, 0, 0, 0, 1, -0.5),
            (0, 0, 0, -1, 0, 1, 1.5, -1),
        ),
        ((0, 0, -1, 0, 1, 0), (0, -1, 0, 1, 0, 0)),
    ),
    (
        (1, 0, 0),
        (1 / 3, 1 / 3, 1 / 3),
        (-1 / 3, 1 / 3, -1 / 3),
        (-16 / 15, -8 / 15, -4 / 15),
        (1 / 15, -2 / 15, 4 / 15),
        (0, 0, 1),
    ),
    Transform(
        (
            (1, 0, 0, 1, 1, 0, 1, 0),
            (0, 0, 0, 0.5, -2, 0, 0, 1),
            (0, 0, 0, 0.25, 4, 0, 1, 0),
            (0, 0, 0, 0.125, -8, 1, 0, 1),
        ),
        ((0, 1, 1, 0, 0, 0), (0, 1, -1, 0, 0, 0)),
    ),
)
"""At 0, 1, -1, 1/2, -2 and infinity, which lose the fewest digits (Barabasz et al. 2020, section 5)."""
SCHEMES = {"winograd": F2, "winograd4": F4}
"""By the names of their kernels (see `Workload`)."""
_FEWEST = 6
"""Tiles of a strip: what a register tile needs to keep the multiply-adds busy."""


def fits(window: Window) -> bool:
    """Whether a convolution looks as these do."""
    return window.size == (3, 3) and window.strides == (1, 1) and window.dilations == (1, 1)


def tiles(window: Window, scheme: WinogradScheme) -> tuple[int, int]:
    """Rows and columns of tiles over the output."""
    height, width = window.output
    return -(-height // scheme.out), -(-width // scheme.out)


def strip(window: Window, scheme: WinogradScheme) -> int:
    """Rows of tiles in a strip: as few as give a register tile enough, of those that waste the fewest."""
    down, across = tiles(window, scheme)
    enough = [rows for rows in range(1, down + 1) if rows * across >= _FEWEST] or [down]
    return min(enough, key=lambda rows: (-(-down // rows) * rows, rows))


def pack(weights: npt.NDArray[np.generic], tile: Tile, block: int, scheme: WinogradScheme) -> npt.NDArray[np.generic]:
    """[Co, Ci, 3, 3] as G g G^T, [Co / (m b), s, s, Ci / b, b, m, b], s rows and columns of a tile; missing output
    channels become zero."""
    co, ci = weights.shape[:2]
    wide = tile.chunks * block
    kernel = np.asarray(scheme.weights)
    taken = np.einsum("ik,ockl,jl->ijoc", kernel, weights.astype(np.float64), kernel)
    padded = np.pad(taken, ((0, 0), (0, 0), (0, -co % wide), (0, 0)))
    cut = padded.reshape(scheme.size, scheme.size, -1, tile.chunks, block, ci // block, block)
    return np.ascontiguousarray(cut.transpose(2, 0, 1, 5, 6, 3, 4).astype(weights.dtype))


def winograd(
    x: te.Tensor, w: te.Tensor, channels: int, window: Window, tile: Tile, scheme: WinogradScheme
) -> te.Tensor:
    """x [N, Ci / b, H * W, b] with packed weights to [N, Co / b, OH * OW, b], float32.

    `channels` are those of the output; its last block may hold more, which are zero.
    """
    from tvm import te

    outer, _, _, blocks, inner, chunks, block = (int(extent) for extent in w.shape)
    (down, across), rows, width = tiles(window, scheme), strip(window, scheme), window.output[1]
    out, size = scheme.out, scheme.size
    strips, count = -(-down // rows), rows * across
    source = _padded(x, window, (strips * rows, across), scheme)
    # The first factor of each transform is a stage of its own: its results are read several times.
    half = te.compute(
        (x.shape[0], strips, blocks, rows, across, size, size, inner),
        lambda n, s, c, r, t, i, q, lane: _combined(
            scheme.inputs, i, lambda p: source(n, c, (s * rows + r) * out + p, t * out + q, lane)
        ),
        name="half",
    )
    taken = te.compute(
        (x.shape[0], strips, size, size, blocks, rows, across, inner),
        lambda n, s, i, j, c, r, t, lane: _combined(scheme.inputs, j, lambda q: half[n, s, c, r, t, i, q, lane]),
        name="taken",
    )
    summed = _products(taken, w, tile, count, across, width)
    upper = te.compute(
        (x.shape[0], outer * chunks, strips, rows, across, out, size, block),
        lambda n, c, s, r, t, i, q, lane: _combined(
            scheme.outputs, i, lambda p: summed(n, c, s, p, q, r * across + t, lane)
        ),
        name="upper",
    )
    image = te.compute(
        (x.shape[0], outer * chunks, strips, rows, out, across, out, block),
        lambda n, c, s, r, i, t, j, lane: _combined(scheme.outputs, j, lambda q: upper[n, c, s, r, t, i, q, lane]),
        name="image",
    )

    def placed(n: Any, c: Any, p: Any, lane: Any) -> Any:
        h, t = p // width, p % width
        row = h // out
        return image[n, c, row // rows, row % rows, h % out, t // out, t % out, lane]

    return te.compute((x.shape[0], -(-channels // block), window.output[0] * width, block), placed, name="winograd")


def _padded(x: te.Tensor, window: Window, grid: tuple[int, int], scheme: WinogradScheme) -> Callable[..., Any]:
    """A function (n, channel block, row, column, channel) -> the input there, as far as a grid of so many tiles looks;
    beyond the border it is zero."""
    from tvm import te, tirx

    (height, width), (top, left) = window.image, window.pads[:2]
    tall, wide = (count * scheme.out + scheme.size - scheme.out for count in grid)
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

    outer, size, _, blocks, inner, chunks, block = (int(extent) for extent in w.shape)
    rc, ri = te.reduce_axis((0, blocks), "rc"), te.reduce_axis((0, inner), "ri")

    def term(n: Any, o: Any, s: Any, i: Any, j: Any, q: Any, t: Any, m: Any, lane: Any) -> Any:
        at = q * tile.points + t
        if count % tile.points:
            at = tirx.min(at, count - 1)
        return taken[n, s, i, j, rc, at // across, at % across, ri] * w[o, i, j, rc, ri, m, lane]

    groups = -(-count // tile.points)
    sums = te.compute(
        (taken.shape[0], outer, taken.shape[1], size, size, groups, tile.points, chunks, block),
        lambda *i: te.sum(term(*i), axis=[rc, ri]),
        name="sums",
        attrs={"optc.winograd": tile.unroll, "optc.width": width},
    )

    def read(n: Any, c: Any, s: Any, i: Any, j: Any, at: Any, lane: Any) -> Any:
        return sums[n, c // chunks, s, i, j, at // tile.points, at % tile.points, c % chunks, lane]

    return read


def _combined(transform: Transform, row: Any, value: Callable[[int], Any]) -> Any:
    """One row of a transform of the values; `row` is a loop that is written out."""
    from tvm import tirx

    width = len(transform.rows[0]) - len(transform.shared)

    def read(k: int) -> Any:
        return value(k) if k < width else _sum(transform.shared[k - width], value)

    sums = [_sum(factors, read) for factors in transform.rows]
    chosen = sums[-1]
    for index in reversed(range(len(sums) - 1)):
        chosen = tirx.Select(row == index, sums[index], chosen)
    return chosen


def _sum(factors: Sequence[float], value: Callable[[int], Any]) -> Any:
    """The values, each times its factor; what is added as it is comes first."""
    order = sorted((k for k, factor in enumerate(factors) if factor), key=lambda k: (factors[k] != 1, factors[k] < 0))
    total: Any = None
    for k in order:
        term, size = value(k), abs(factors[k])
        if size != 1:
            term = term * float(size)
        total = term if total is None else total + term if factors[k] > 0 else total - term
    return total
