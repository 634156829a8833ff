"""Weights on a symmetric grid: one scale a channel, zero point 0, so that pruned zeros stay zeros.

The scale of a channel minimises sum_d h_d (w_d - Q(w_d))^2 over shrunken ranges, where h (the mean square of each
input, where known) weighs an error by what it does to the layer's answer.

**Saturation.** x86 kernels without a dot-product instruction multiply unsigned activations by signed weights two at a
time and add the two products in 16 bits (`vpmaddubsw`). The usual ways out are weights of 7 bits, which doubles the
rounding error, and unsigned weights, whose kernels are slower. But with activations up to 255 a pair (u, v) can
overflow only if

    max(u, 0) + max(v, 0) > 128   or   max(-u, 0) + max(-v, 0) > 128,

and weights come large in pairs rarely. So 8 bits are kept, and the few pairs over the bound are pulled back to it.
Which weights are neighbours is the kernel's order of the reduction axis: rows of B for MatMul and Gemm, (kernel
position, input channel) for Conv.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....ir.types import DType
from .params import TINY, limits, storable
from .search import search

Matrix = NDArray[np.float32]
Scales = NDArray[np.float32]

SHRINKS = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.8, 0.75, 0.7)
PAIR_LIMIT = 128
"""255 * 128 = 32640 fits in 16 signed bits, 255 * 129 does not."""
DEAREST = 2.0
"""How many times its rounding error a weight may lose to the pair bound."""
BLOCK = 1 << 18
"""Weights looked at together where rows are apart: what is computed on the way stays in the cache, and small."""


def quantize_rows(
    rows: Matrix,
    dtype: DType,
    *,
    importance: NDArray[np.float64] | None = None,
    saturating: bool = False,
    shared: bool = False,
    least_scale: NDArray[np.float64] | None = None,
    search: bool = True,
    bits: int = 0,
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes (n, d) and scales (n,) of `rows` (n, d), reduction axis last and in the kernel's order.

    `importance` is h, (d,) or (n, d); `shared` gives all rows one scale; `least_scale` (n,) bounds scales from below.
    A row of zeros gets scale 1 (or its bound). `search=False` takes the full range. `bits` are those of the type, or
    fewer.
    """
    whole = [slice(0, len(rows))]
    parts = [
        _quantize_block(
            rows[some],
            (1 << (bits - 1)) - 1 if bits else limits(dtype)[1],
            _of_rows(importance, some),
            saturating,
            shared,
            None if least_scale is None else least_scale[some],
            search,
        )
        for some in (whole if shared else blocks(rows))
    ]
    codes, scales = zip(*parts, strict=True)
    return (np.concatenate(codes), np.concatenate(scales)) if len(parts) > 1 else parts[0]


def _quantize_block(
    rows: Matrix,
    top: int,
    importance: NDArray[np.float64] | None,
    saturating: bool,
    shared: bool,
    least_scale: NDArray[np.float64] | None,
    search: bool,
) -> tuple[NDArray[np.int8], Scales]:
    n = len(rows)
    peak = np.abs(rows).max(axis=1, initial=0.0).astype(np.float64) / top
    if saturating:
        peak = np.maximum(peak, _heaviest_pair(rows) / PAIR_LIMIT)
    if shared:
        peak = np.full(n, peak.max(initial=0.0))
    best = _at_least(peak, least_scale)
    if search and rows.size:
        best = _search(rows, peak, top, importance, saturating, shared, least_scale)
    scale = best.astype(np.float32) if shared else storable(best, rows.shape[1])
    return _codes(rows, scale, top, saturating), scale


def _search(
    rows: Matrix,
    peak: NDArray[np.float64],
    top: int,
    importance: NDArray[np.float64] | None,
    saturating: bool,
    shared: bool,
    least_scale: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    root = _root(importance)

    def candidate(shrink: float) -> Scales:
        scale = _at_least(peak * shrink, least_scale).astype(np.float32)
        return scale if shared else storable(scale, rows.shape[1])

    def loss(scale: Scales) -> NDArray[np.float64]:
        error = _row_errors(rows, _codes(rows, scale, top, saturating), scale, root)
        return np.full(len(rows), error.sum()) if shared else error

    # Where the pair bound widened a row, ranges down to its own maximum are worth trying as well.
    shrinks = (*SHRINKS, *((0.6, 0.5) if saturating else ()))
    return search(_at_least(peak, least_scale), map(candidate, shrinks), loss)


def squared_error(
    rows: Matrix, codes: NDArray[np.int8], scale: NDArray[np.float32], importance: NDArray[np.float64] | None
) -> float:
    """sum h (w - Q(w))^2 over all rows."""
    return float(_row_errors(rows, codes, scale, _root(importance)).sum())


def _row_errors(
    rows: Matrix, codes: NDArray[np.int8], scale: NDArray[np.float32], root: Matrix | None
) -> NDArray[np.float64]:
    """sum h (w - Q(w))^2 of each row, `root` being that of h."""
    off = rows - codes * scale[:, None]
    if root is not None:
        off *= root
    return np.asarray(np.einsum("nd,nd->n", off, off), np.float64)


def blocks(rows: Matrix) -> list[slice]:
    """The rows, `BLOCK` weights at a time; at least one slice, and one row in each."""
    step = max(1, BLOCK // max(1, rows.shape[1]))
    return [slice(start, start + step) for start in range(0, max(1, len(rows)), step)]


def _of_rows(importance: NDArray[np.float64] | None, some: slice) -> NDArray[np.float64] | None:
    return importance if importance is None or importance.ndim == 1 else importance[some]


def _root(importance: NDArray[np.float64] | None) -> Matrix | None:
    return None if importance is None else np.sqrt(importance).astype(np.float32)


def _at_least(scale: NDArray[np.float64], least: NDArray[np.float64] | None) -> NDArray[np.float64]:
    scale = np.where(scale > TINY, scale, 1.0 if least is None else TINY)
    return scale if least is None else np.maximum(scale, least)


def _codes(rows: Matrix, scale: NDArray[np.float32], top: int, saturating: bool) -> NDArray[np.int8]:
    codes = np.clip(np.rint(rows / scale[:, None]), -top, top).astype(np.int8)
    return _within_pairs(codes) if saturating else codes


def _heaviest_pair(rows: Matrix) -> NDArray[np.float64]:
    even = rows.shape[1] // 2 * 2
    u, v = rows[:, 0:even:2], rows[:, 1:even:2]
    plus = np.maximum(u, 0.0) + np.maximum(v, 0.0)
    minus = np.maximum(-u, 0.0) + np.maximum(-v, 0.0)
    heaviest = np.maximum(plus, minus).max(axis=1, initial=0.0)
    return np.asarray(heaviest, np.float64)


def _within_pairs(codes: NDArray[np.int8]) -> NDArray[np.int8]:
    """Pull pairs over the bound back to it: half of what is too much from each, the odd one from the larger."""
    even = codes.shape[1] // 2 * 2
    u, v = codes[:, 0:even:2].astype(np.int16), codes[:, 1:even:2].astype(np.int16)
    same = (u > 0) == (v > 0)
    excess = np.where(same, np.abs(u) + np.abs(v) - PAIR_LIMIT, 0)
    rows, columns = np.nonzero(excess > 0)
    if not len(rows):
        return codes
    e, a, b = excess[rows, columns], u[rows, columns], v[rows, columns]
    big = np.abs(a) >= np.abs(b)
    from_a = np.where(big, (e + 1) // 2, e // 2)
    codes = codes.copy()
    codes[rows, 2 * columns] = a - np.sign(a) * from_a
    codes[rows, 2 * columns + 1] = b - np.sign(b) * (e - from_a)
    return codes


def quantize_paired(
    rows: Matrix,
    *,
    importance: NDArray[np.float64] | None = None,
    shared: bool = False,
    least_scale: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.int8], NDArray[np.float32], int]:
    """`quantize_rows` for kernels that saturate, and the zero point: 0 where the codes keep to the pair bound, and 128
    where they do not, because that would cost more than `DEAREST` times the error, and are to be stored unsigned."""
    bound = quantize_rows(
        rows, DType.INT8, importance=importance, saturating=True, shared=shared, least_scale=least_scale
    )
    free = quantize_rows(rows, DType.INT8, importance=importance, shared=shared, least_scale=least_scale)
    if squared_error(rows, *bound, importance) > DEAREST * squared_error(rows, *free, importance):
        return *free, 128
    return *bound, 0


def weight_error(rows: Matrix, decoded: Matrix, importance: NDArray[np.float64] | None = None) -> float:
    """What `decoded` in place of a layer's weight `rows` (n, d) adds to its answer, as a share of the answer's power.

    sum_d h_d (w_d - decoded_d)^2 over sum_d h_d w_d^2, where h, the mean square of each input, is 1 if it is not known.
    """
    power = error = 0.0
    for some in blocks(rows):
        weigh = _of_rows(importance, some)
        true, off = (np.square(part, dtype=np.float64) for part in (rows[some], rows[some] - decoded[some]))
        power += float(np.sum(true if weigh is None else true * weigh))
        error += float(np.sum(off if weigh is None else off * weigh))
    return error / max(power, 1e-30)


def row_importance(
    energy: NDArray[np.float64] | None, shape: tuple[int, int, int], channels: int
) -> NDArray[np.float64] | None:
    """h for the kernel's rows of a layer of `shape` (groups, n, d), from the mean square of its input channels, of
    which a group has `channels`; `None` where that was not seen. A channel is read at every kernel position."""
    groups, n, d = shape
    if energy is None or not np.isfinite(energy).all() or energy.max(initial=0.0) <= 0.0:
        return None
    if len(energy) != groups * channels:
        return None
    tiled = np.tile(energy.reshape(groups, -1), (1, d // channels))
    return np.asarray(tiled[0] if groups == 1 else np.repeat(tiled, n, axis=0))
