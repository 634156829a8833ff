"""Matrix products: with weights packed when the model is compiled, and of two computed matrices.

Weights [K, N] become [N / w, K, w], one panel of `w` columns after the other. Rows are taken `points` at a time; in the
last tile, rows beyond the end repeat the last one, so that no bounds are checked in the loop, and are not stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, tirx

from ..cpu.tiling import Tile
from .sums import sums


def pack(weights: npt.NDArray[np.generic], tile: Tile, block: int) -> npt.NDArray[np.generic]:
    """[K, N] as [N / (m b), K, m, b]; missing columns become zero."""
    k, n = weights.shape
    wide = tile.chunks * block
    full = -(-n // wide) * wide
    padded = np.pad(weights, ((0, 0), (0, full - n)))
    return np.ascontiguousarray(padded.reshape(k, full // wide, tile.chunks, block).transpose(1, 0, 2, 3))


def dense(x: te.Tensor, w: te.Tensor, columns: int, tile: Tile) -> te.Tensor:
    """x [..., M, K] by packed weights [N / (m b), K, m, b] to [..., M, N]."""

    panels, depth, chunks, block = (int(d) for d in w.shape)

    def term(lead: Any, row: Any, p: Any, m: Any, lane: Any, k: Any) -> Any:
        return x[(*lead, row, k)] * w[p, k, m, lane]

    return product(x, term, ((depth, "k"),), (panels, chunks, block), columns, tile, str(x.dtype), tile.notes(1))


def matmul(x: te.Tensor, y: te.Tensor, tile: Tile, block: int) -> te.Tensor:
    """x [..., M, K] by y [..., K, N], both computed, the leading sizes equal. `y` is packed on the way."""
    depth, columns = y.shape[-2], y.shape[-1]
    wide = tile.chunks * block
    # More panels than there are would be packed for nothing: where their number is not known, a stage that reads one of
    # those that are declared beyond (see `tiles`), and are never computed, reads the last.
    used, panels = tirx.ceildiv(columns, wide), tiles(columns, wide)
    packed = te.compute(
        (*y.shape[:-2], used, depth, tile.chunks, block),
        lambda *i: y[(*i[:-4], i[-3], tirx.min(i[-4] * wide + i[-2] * block + i[-1], columns - 1))],
        name="packed",
    )

    def term(lead: Any, row: Any, p: Any, m: Any, lane: Any, k: Any) -> Any:
        panel = p if isinstance(panels, int) else tirx.min(p, used - 1)
        return x[(*lead, row, k)] * packed[(*lead, panel, k, m, lane)]

    cut = (panels, tile.chunks, block)
    return product(x, term, ((fixed(depth), "k"),), cut, columns, tile, str(x.dtype), tile.notes(1))


def product(
    x: te.Tensor,
    term: Callable[..., Any],
    axes: Sequence[tuple[Any, str]],
    cut: tuple[Any, int, int],
    columns: Any,
    tile: Tile,
    dtype: str,
    notes: Mapping[str, int],
) -> te.Tensor:
    """x [..., M, K] by weights to [..., M, N]: sums over `axes` of what `term` makes of the leading places, a row, a
    panel, a chunk, a lane and places of the axes. `cut` counts panels of the weights, their chunks, and lanes."""
    panels, chunks, block = cut
    rank = len(x.shape)
    lead, rows = tuple(x.shape[:-2]), x.shape[-2]
    whole = isinstance(rows, int | tirx.IntImm) and int(rows) % tile.points == 0

    def placed(*i: Any) -> Any:
        outer, (p, r, t, m, lane, *k) = i[: rank - 2], i[rank - 2 :]
        row = r * tile.points + t
        if not whole:
            row = tirx.min(row, rows - 1)
        return term(outer, row, p, m, lane, *k)

    shape = (*lead, panels, tiles(rows, tile.points), tile.points, chunks, block)
    total = sums(shape, placed, axes, dtype, notes)
    wide = chunks * block

    def place(*i: Any) -> Any:
        outer, r, c = i[:-2], i[-2], i[-1]
        return total[(*outer, c // wide, r // tile.points, r % tile.points, c % wide // block, c % block)]

    return te.compute((*lead, rows, columns), place, name="dense")


def fixed(size: Any) -> Any:
    """A size as a number where it is one."""
    return int(size) if isinstance(size, tirx.IntImm) else size


def tiles(size: Any, tile: int) -> Any:
    """How many tiles a stage declares for so many rows.

    Where the size is not known, as many as there are rows: that this suffices needs no proof, and the schedule computes
    only those that are used.
    """
    return -(-int(size) // tile) if isinstance(size, int | tirx.IntImm) else size
