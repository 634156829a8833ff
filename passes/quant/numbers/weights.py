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
from ..layers import Layer
from .params import TINY, limits, storable

Matrix = NDArray[np.float32]

SHRINKS = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.8, 0.75, 0.7)
PAIR_LIMIT = 128
"""255 * 128 = 32640 fits in 16 signed bits, 255 * 129 does not."""


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
    n = len(rows)
    top = (1 << (bits - 1)) - 1 if bits else limits(dtype)[1]
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
    least = np.full(len(rows), np.inf)
    best, root = _at_least(peak, least_scale), _root(importance)
    # Where the pair bound widened a row, ranges down to its own maximum are worth trying as well.
    for shrink in (*SHRINKS, *((0.6, 0.5) if saturating else ())):
        scale = _at_least(peak * shrink, least_scale).astype(np.float32)
        scale = scale if shared else storable(scale, rows.shape[1])
        error = _row_errors(rows, _codes(rows, scale, top, saturating), scale, root)
        if shared:
            error = np.full(len(rows), error.sum())
        better = error < least
        least = np.where(better, error, least)
        best = np.where(better, scale, best)
    return best


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


def reduction_rows(weight: NDArray[np.float32], op: str, *, transposed: bool = False) -> Matrix:
    """A weight as (outputs, reduction) in the order in which the kernels read it.

    Conv (n, c, *k) -> (n, *k then c); Gemm and MatMul (..., d, n), or (n, d) where `transposed`, -> (n, d).
    """
    if op == "Conv":
        return np.ascontiguousarray(np.moveaxis(weight, 1, -1).reshape(len(weight), -1))
    return np.ascontiguousarray(weight if transposed else weight.T)


def weight_of_rows(
    rows: NDArray[np.generic], shape: tuple[int, ...], op: str, *, transposed: bool = False
) -> NDArray[np.generic]:
    """The inverse of `reduction_rows`, for codes."""
    if op == "Conv":
        return np.ascontiguousarray(np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1))
    return np.ascontiguousarray(rows if transposed else rows.T)


def importance_of(
    layer: Layer, energy: NDArray[np.float64] | None, shape: tuple[int, ...]
) -> NDArray[np.float64] | None:
    """h for the rows (n, d) of a layer, from the mean square of its input channels; `None` where that was not seen.

    A Conv reads each channel at every kernel position; of a group, only the group's channels.
    """
    if energy is None or not np.isfinite(energy).all() or energy.max(initial=0.0) <= 0.0:
        return None
    if layer.op != "Conv":
        return energy if len(energy) == shape[1] else None
    groups = layer.node.get_int("group", 1)
    if len(energy) % groups or shape[1] % (len(energy) // groups) or shape[0] % groups:
        return None
    by_group = energy.reshape(groups, -1)
    tiled = np.tile(by_group, (1, shape[1] // by_group.shape[1]))
    return np.repeat(tiled, shape[0] // groups, axis=0)
