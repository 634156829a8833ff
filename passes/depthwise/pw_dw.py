"""Pointwise then depthwise: W[o,:,:] ~ sum_t P[o,t,:] D[o,t,:], rank terms an output (Network Decoupling's PD form).

A 1 x 1 from c to rank * n, then a grouped convolution with `rank` inputs a group. The outputs are independent problems;
for each, alternating least squares: P_o given D_o (dimension c * rank), D_o given P_o (rank * taps). They are solved as
stacks of as many outputs as `STACK` bytes hold. The P step needs one factorisation an output, which is slow for wide
layers, and the 1 x 1 runs at the input's resolution, so strided layers are better served by the other form.
"""

from __future__ import annotations

import numpy as np

from ..walk.target import Array, lost_by
from .dw_pw import HOPELESS

STACK = 4 << 20
"""Bytes of the normal equations that are solved at a time."""


def pw_dw(
    weight: Array, hessian: Array, channels: int, rank: int, *, sweeps: int = 3, allowed: float = np.inf
) -> tuple[Array, Array]:
    """P (n, rank, c) and D (n, rank, taps) for `weight` (n, c*taps) in the metric `hessian`; see `refit`."""
    n, taps = len(weight), weight.shape[1] // channels
    rank = min(rank, taps, channels)
    blocks = hessian.reshape(channels, taps, channels, taps)
    over_channels = np.einsum("cucv->uv", blocks) / channels
    low = np.linalg.cholesky(over_channels)
    _, _, vt = np.linalg.svd(weight.reshape(n, channels, taps) @ low, full_matrices=False)
    d = np.linalg.solve(low.T, vt[:, :rank].transpose(0, 2, 1)).transpose(0, 2, 1)
    return refit(weight, hessian, d, sweeps=sweeps, allowed=allowed)


def refit(weight: Array, hessian: Array, d: Array, *, sweeps: int = 1, allowed: float = np.inf) -> tuple[Array, Array]:
    """P and D after more sweeps, from the D (n, rank, taps) that is given.

    The losses of outputs add up. Once those that are fitted lose more than `allowed`, so does the whole, and the rest
    stays zero. Outputs that lose `HOPELESS` times that before the first sweep are not swept.
    """
    n, rank, taps = d.shape
    channels = weight.shape[1] // taps
    blocks = hessian.reshape(channels, taps, channels, taps)
    by_taps = np.ascontiguousarray(blocks.transpose(1, 3, 0, 2)).reshape(taps * taps, channels * channels)
    d, p = d.copy(), np.zeros((n, rank, channels))
    crossed = (weight @ hessian).reshape(n, channels, taps)
    together = max(1, STACK // (8 * (rank * max(channels, taps)) ** 2))
    lost = 0.0
    for at in range(0, n, together):
        some = slice(at, at + together)
        p[some] = _first(d[some], by_taps, crossed[some])
        if lost + lost_by(merged(p[some], d[some]), weight[some], hessian) <= HOPELESS * allowed:
            for _ in range(sweeps):
                d[some] = _second(p[some], blocks, crossed[some])
                p[some] = _first(d[some], by_taps, crossed[some])
        lost += lost_by(merged(p[some], d[some]), weight[some], hessian)
        if lost > allowed:
            break
    return p, d


def merged(p: Array, d: Array) -> Array:
    """The dense weights (n, c*taps) that the pair stands for."""
    return np.asarray((p.transpose(0, 2, 1) @ d).reshape(len(p), -1))


def _first(d: Array, by_taps: Array, crossed: Array) -> Array:
    """P (m, rank, c) for D (m, rank, taps), of outputs with `crossed` (m, c, taps)."""
    m, rank, taps = d.shape
    channels = crossed.shape[1]
    pairs = (d[:, :, None, :, None] * d[:, None, :, None, :]).reshape(m * rank * rank, taps * taps)
    gram = (pairs @ by_taps).reshape(m, rank, rank, channels, channels).swapaxes(2, 3)
    return _solved(gram.reshape(m, rank * channels, -1), d @ crossed.swapaxes(1, 2))


def _second(p: Array, blocks: Array, crossed: Array) -> Array:
    """D (m, rank, taps) for P (m, rank, c)."""
    m, rank, channels = p.shape
    taps = blocks.shape[1]
    read = (p.reshape(m * rank, channels) @ blocks.reshape(channels, -1)).reshape(m, rank * taps, channels, taps)
    gram = p[:, None] @ read
    return _solved(gram.reshape(m, rank * taps, -1), p @ crossed)


def _solved(gram: Array, right: Array) -> Array:
    """gram^-1 right for each of a stack: `gram` (m, k, k), `right` of the shape of the answer, k numbers each."""
    each = np.arange(gram.shape[1])
    trace = np.trace(gram, axis1=1, axis2=2)
    gram[:, each, each] += 1e-9 * trace[:, None] / len(each)
    return np.asarray(np.linalg.solve(gram, right.reshape(len(gram), -1, 1)).reshape(right.shape))
