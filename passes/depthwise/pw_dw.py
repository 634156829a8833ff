"""Pointwise then depthwise: W[o,:,:] ~ sum_t P[o,t,:] D[o,t,:], rank terms an output (Network Decoupling's PD form).

A 1 x 1 from c to rank * n, then a grouped convolution with `rank` inputs a group. The outputs are independent problems;
for each, alternating least squares: P_o given D_o (dimension c * rank), D_o given P_o (rank * taps). The P step needs
one factorisation an output, which is slow for wide layers, and the 1 x 1 runs at the input's resolution, so strided
layers are better served by the other form.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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
    stays zero.
    """
    n, rank, taps = d.shape
    channels = weight.shape[1] // taps
    blocks = hessian.reshape(channels, taps, channels, taps)
    d, p = d.copy(), np.zeros((n, rank, channels))
    crossed = (weight @ hessian).reshape(n, channels, taps)
    lost = 0.0
    for o in range(n):
        p[o] = _first(d[o], blocks, crossed[o])
        for _ in range(sweeps):
            d[o] = _second(p[o], blocks, crossed[o])
            p[o] = _first(d[o], blocks, crossed[o])
        miss = (p[o].T @ d[o]).reshape(-1) - weight[o]
        lost += float(miss @ hessian @ miss)
        if lost > allowed:
            break
    return p, d


def merged(p: Array, d: Array) -> Array:
    """The dense weights (n, c*taps) that the pair stands for."""
    return np.asarray(np.einsum("ntc,ntk->nck", p, d, optimize=True).reshape(len(p), -1))


def _first(d: Array, blocks: Array, crossed: Array) -> Array:
    rank, channels = len(d), blocks.shape[0]
    gram = np.einsum("tu,cuev,sv->tcse", d, blocks, d, optimize=True).reshape(rank * channels, -1)
    gram[np.diag_indices_from(gram)] += 1e-9 * np.trace(gram) / len(gram)
    return np.asarray(np.linalg.solve(gram, np.einsum("cu,tu->tc", crossed, d).reshape(-1)).reshape(rank, channels))


def _second(p: Array, blocks: Array, crossed: Array) -> Array:
    rank, taps = len(p), blocks.shape[1]
    gram = np.einsum("tc,cuev,se->tusv", p, blocks, p, optimize=True).reshape(rank * taps, -1)
    gram[np.diag_indices_from(gram)] += 1e-9 * np.trace(gram) / len(gram)
    return np.asarray(np.linalg.solve(gram, np.einsum("cu,tc->tu", crossed, p).reshape(-1)).reshape(rank, taps))
