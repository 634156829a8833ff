"""Low-rank split of a layer across its outputs: W ~ A B, B (r, d) first, then A (n, r) as a 1x1.

With the metric H the best rank-r weights are  A = U_r,  B = U_r^T W*  where U diagonalises  S = W* H W*^T,  the
covariance of the target's output; the loss is the sum of the eigenvalues left out, so one eigendecomposition gives the
error of every rank. (Zhang et al. 2015 section 3.1; the same optimum as SVD-LLM's whitening, without a Cholesky of H.)
For n > d the eigenproblem is solved on the smaller, input side: with H = L L^T that of L^T W*^T W* L.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ChannelSplit:
    """All ranks of one layer: `losses[r]` is the loss of rank r (length rank_max + 1); `factors(r)` the two weights."""

    losses: Array
    left: Array  # (n, rank_max), columns by falling importance
    right: Array  # (rank_max, d)

    def factors(self, rank: int) -> tuple[Array, Array]:
        """A (n, rank) and B (rank, d), scaled so that both carry half of the singular value."""
        a, b = self.left[:, :rank], self.right[:rank]
        balance = np.sqrt(np.maximum(np.linalg.norm(b, axis=1), 1e-30) / np.maximum(np.linalg.norm(a, axis=0), 1e-30))
        return a * balance, b / balance[:, None]


def channel_split(weight: Array, hessian: Array) -> ChannelSplit:
    """Split `weight` (n, d) in the metric `hessian` (d, d)."""
    n, d = weight.shape
    if n <= d:
        values, vectors = np.linalg.eigh(weight @ hessian @ weight.T)
        values, left = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
        return ChannelSplit(_tails(values), left, left.T @ weight)
    low = np.linalg.cholesky(hessian)
    scaled = weight @ low
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    values, right = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    return ChannelSplit(_tails(values), scaled @ right, np.linalg.solve(low.T, right).T)


def channel_losses(weight: Array, hessian: Array) -> Array:
    """The losses of `channel_split`, without its factors: a third of the work."""
    n, d = weight.shape
    if n <= d:
        return _tails(np.maximum(np.linalg.eigvalsh(weight @ hessian @ weight.T)[::-1], 0.0))
    scaled = weight @ np.linalg.cholesky(hessian)
    return _tails(np.maximum(np.linalg.eigvalsh(scaled.T @ scaled)[::-1], 0.0))


def _tails(values: Array) -> Array:
    """Sum of `values[r:]` for every r, the last being 0."""
    return np.concatenate([np.cumsum(values[::-1])[::-1], [0.0]])
