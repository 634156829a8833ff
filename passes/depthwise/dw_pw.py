"""Depthwise then pointwise: W[o,i,:] ~ sum_t P[o,i,t] D[i,t,:], rank terms a channel (Network Decoupling's DP form).

A depthwise convolution with `rank` filters a channel, then a 1 x 1. Both factors are fitted to W* in the metric H by
alternating least squares, each step exact, so the loss never rises:

  start  per channel i: SVD of W*_i L_i with H_ii = L_i L_i^T (the whitened decoupling)
  P      one regression on the depthwise outputs, dimension c * rank
  D      channel after channel: (P_i^T P_i) dD_i H_ii = P_i^T R_i with R = (W* - What) H, a Kronecker system of
         rank * kh * kw unknowns

The rank cannot exceed the number of taps, where the form is exact.
"""

from __future__ import annotations

import numpy as np

from ..walk.target import Array, lost_by

HOPELESS = 8.0
"""How many times less a form may lose once it is fitted than where it begins."""


def dw_pw(
    weight: Array, hessian: Array, channels: int, rank: int, *, sweeps: int = 4, allowed: float = np.inf
) -> tuple[Array, Array]:
    """P (n, c, rank) and D (c, rank, taps) for `weight` (n, c*taps) in the metric `hessian`; see `refit`."""
    d = _start(weight, hessian, channels, min(rank, weight.shape[1] // channels))
    return refit(weight, hessian, _pointwise(d, hessian, weight @ hessian), d, sweeps=sweeps, allowed=allowed)


def refit(
    weight: Array, hessian: Array, p: Array, d: Array, *, sweeps: int = 2, allowed: float = np.inf
) -> tuple[Array, Array]:
    """P and D after more sweeps, from those given.

    Every sweep gains less than the one before. Where the gain of the last, so often as sweeps are left, would not bring
    the loss down to `allowed`, no more are made; nor is the first where the loss is `HOPELESS` times that.
    """
    crossed = weight @ hessian
    lost = lost_by(merged(p, d), weight, hessian) if allowed < np.inf else 0.0
    for left in range(sweeps, 0, -1):
        if lost > HOPELESS * allowed:
            break
        d = _depthwise(p, d, weight, hessian)
        p = _pointwise(d, hessian, crossed)
        if allowed < np.inf:
            before, lost = lost, lost_by(merged(p, d), weight, hessian)
            if lost * (lost / max(before, 1e-300)) ** (left - 1) > allowed:
                break
    size = np.sqrt(np.maximum(np.linalg.norm(d, axis=2), 1e-30) / np.maximum(np.linalg.norm(p, axis=0), 1e-30))
    return p * size, d / size[:, :, None]


def merged(p: Array, d: Array) -> Array:
    """The dense weights (n, c*taps) that the pair stands for."""
    return np.ascontiguousarray((p.swapaxes(0, 1) @ d).swapaxes(0, 1)).reshape(len(p), -1)


def _start(weight: Array, hessian: Array, channels: int, rank: int) -> Array:
    n, taps = len(weight), weight.shape[1] // channels
    each = np.arange(channels)
    blocks = hessian.reshape(channels, taps, channels, taps)[each, :, each, :]
    low = np.linalg.cholesky(blocks)
    by_channel = weight.reshape(n, channels, taps).transpose(1, 0, 2)
    _, _, vt = np.linalg.svd(by_channel @ low, full_matrices=False)
    vt = vt[:, :rank]
    if vt.shape[1] < rank:  # fewer outputs than terms: fill with the remaining unit directions
        rest = np.eye(taps)[: rank - vt.shape[1]]
        vt = np.concatenate([vt, np.broadcast_to(rest, (channels, *rest.shape))], axis=1)
    return np.asarray(np.linalg.solve(low.transpose(0, 2, 1), vt.transpose(0, 2, 1)).transpose(0, 2, 1))


def _pointwise(d: Array, hessian: Array, crossed: Array) -> Array:
    channels, rank, taps = d.shape
    size = channels * rank
    th = (d @ hessian.reshape(channels, taps, channels * taps)).reshape(size, channels, taps)
    across = d.swapaxes(1, 2)
    gram = (th.swapaxes(0, 1) @ across).swapaxes(0, 1).reshape(size, size)
    right = (crossed.reshape(-1, channels, taps).swapaxes(0, 1) @ across).swapaxes(0, 1).reshape(-1, size)
    gram[np.diag_indices_from(gram)] += 1e-9 * np.trace(gram) / size
    return np.asarray(np.linalg.solve(gram, right.T).T.reshape(-1, channels, rank))


def _depthwise(p: Array, d: Array, weight: Array, hessian: Array) -> Array:
    channels, rank, taps = d.shape
    d = d.copy()
    rest = (weight - merged(p, d)) @ hessian
    filters = np.ascontiguousarray(p.swapaxes(0, 1))  # (c, n, rank)
    each, terms = np.arange(channels), np.arange(rank)
    gram = filters.swapaxes(1, 2) @ filters
    gram[:, terms, terms] += 1e-9 * np.maximum(np.trace(gram, axis1=1, axis2=2), 1e-30)[:, None] / rank
    weigh = np.linalg.solve(gram, filters.swapaxes(1, 2))  # (c, rank, n)
    spread = np.linalg.inv(hessian.reshape(channels, taps, channels, taps)[each, :, each, :])
    for i in range(channels):
        s = slice(i * taps, (i + 1) * taps)
        step = weigh[i] @ rest[:, s] @ spread[i]
        d[i] += step
        rest -= filters[i] @ (step @ hessian[s, :])
    return d
