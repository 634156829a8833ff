"""Tucker-2: 1 x 1 (c -> r_in), k x k (r_in -> r_out), 1 x 1 (r_out -> n).

Given a basis Q (r_in, c) of the input channels, the rest has a closed form: regress W* onto the projected input (metric
T H T^T with T = Q (x) I), then the channel split of that regression. Q starts as the leading directions of what W*
reads, whitened by the channel covariance; conjugate gradient steps then fit it to the chosen output rank. (Kim et al.
2016; docs/algorithms.md, section 4.)

1 x 1 kernels reduce to the channel split and are left to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .channel import ChannelSplit, channel_split
from .conjugate import descend

Array = NDArray[np.float64]


class InputBases:
    """Bases of the input channels of `weight` (n, d): the directions that carry most of the output, in the metric
    `hessian`. One factorisation gives those of every rank."""

    def __init__(self, weight: Array, hessian: Array, channels: int) -> None:
        n, taps = len(weight), weight.shape[1] // channels
        blocks = hessian.reshape(channels, taps, channels, taps)
        covariance = np.einsum("cudu->cd", blocks) / taps
        reads = weight.reshape(n, channels, taps).transpose(1, 0, 2).reshape(channels, n * taps)
        low = np.linalg.cholesky(covariance + 1e-9 * np.trace(covariance) / channels * np.eye(channels))
        # The input is L e with white e; keep the directions of e that W* amplifies most, Q = U_r^T L^-1.
        u, _, _ = np.linalg.svd(low.T @ reads, full_matrices=False)
        self._rows = np.linalg.solve(low.T, u).T

    def of(self, rank: int) -> Array:
        """Q (rank, channels)."""
        return np.asarray(self._rows[:rank])


def projected(weight: Array, hessian: Array, basis: Array) -> tuple[Array, Array]:
    """W* regressed onto the projected input, (n, r_in * taps), and the metric there."""
    rank, channels = basis.shape
    taps = weight.shape[1] // channels
    d = weight.shape[1]
    th = np.tensordot(basis, hessian.reshape(channels, taps * d), axes=1).reshape(rank * taps, channels, taps)
    metric = (basis @ th).reshape(rank * taps, rank * taps)
    metric[np.diag_indices_from(metric)] += 1e-10 * np.trace(metric) / len(metric)
    right = weight @ th.reshape(rank * taps, d).T
    return np.asarray(np.linalg.solve(metric, right.T).T), np.asarray(metric)


def tucker_split(weight: Array, hessian: Array, basis: Array) -> tuple[Array, ChannelSplit, float]:
    """From a basis of the inputs: Q (r_in, c) that spans as much, the channel split of the rest (all output ranks), and
    the loss of the projection alone.

    The whole loss of an output rank r is the projection's loss plus `split.losses[r]`.
    """
    basis = np.linalg.qr(basis.T)[0].T  # the span is what matters
    core, metric = projected(weight, hessian, basis)
    total = float(np.sum((weight @ hessian) * weight))
    explained = float(np.sum((core @ metric) * core))
    return basis, channel_split(core, metric), max(total - explained, 0.0)


def tucker_fit(
    weight: Array, hessian: Array, channels: int, rank_in: int, rank: int, *, sweeps: int = 3, steps: int = 4
) -> tuple[Array, Array, Array]:
    """Q (r_in, c), core (r, r_in * taps) and A (n, r), with the basis fitted to what this output rank can use."""
    basis, split, _ = tucker_split(weight, hessian, InputBases(weight, hessian, channels).of(rank_in))
    taps = weight.shape[1] // channels
    spread = np.einsum("cucu->c", hessian.reshape(channels, taps, channels, taps)) / taps
    for _ in range(sweeps):
        a, b = split.factors(rank)
        reads = (a @ b).reshape(len(weight), rank_in, taps)

        def push(q: Array, reads: Array = reads) -> Array:
            return np.asarray((q.T @ reads).reshape(weight.shape))

        def pull(difference: Array, reads: Array = reads) -> Array:
            g = (difference @ hessian).reshape(len(weight), channels, taps)
            return np.asarray(np.tensordot(reads, g, axes=([0, 2], [0, 2])))

        scale = np.einsum("nit,nit->i", reads, reads)[:, None] * spread
        basis = descend(basis, weight, push, pull, scale, steps)
        basis, split, _ = tucker_split(weight, hessian, basis)
    a, b = split.factors(rank)
    return basis, b, a
